"""The processes that run models: started, given work, watched, replaced."""
