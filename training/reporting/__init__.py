"""What a run is shown as: figures, plots, pages."""
