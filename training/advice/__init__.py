"""Which pretrained network suits labelled pictures, and what more pictures would bring."""
