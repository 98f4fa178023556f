from tests.taxon.feedback.places import new_place, open_store, place, postgres

__all__ = ["new_place", "open_store", "place", "postgres"]
