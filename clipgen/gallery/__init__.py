"""Pictures that are there, from wherever: found, opened, seen by CLIP, and scored, ranked, classified and explained."""

from clipgen.gallery.ask import Ranked, classify, load_clip, rank, score, similarity
from clipgen.gallery.heat import Explanation, explain, explain_picture
from clipgen.gallery.look import look, opened
from clipgen.gallery.paths import find_pictures

__all__ = [
    "Explanation",
    "Ranked",
    "classify",
    "explain",
    "explain_picture",
    "find_pictures",
    "load_clip",
    "look",
    "opened",
    "rank",
    "score",
    "similarity",
]
