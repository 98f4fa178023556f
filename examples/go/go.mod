module taxon.example/classify

go 1.19
