"""Why a model says what it says of a picture, on the runs of workers that would be idle."""
