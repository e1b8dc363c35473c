"""Pictures that are there, from wherever: opened, seen by CLIP, scored, ranked, classified, explained and found."""

from clipgen.gallery.ask import Ranked, caption, classify, diversity, load_clip, rank, score, search, similarity
from clipgen.gallery.heat import Explanation, explain, explain_picture
from clipgen.gallery.image_paths import find_pictures
from clipgen.gallery.index import Index, index_of
from clipgen.gallery.look import captioned, look, opened
from clipgen.gallery.search import Found, nearest, sought, terms_of

__all__ = [
    "Explanation",
    "Found",
    "Index",
    "Ranked",
    "caption",
    "captioned",
    "classify",
    "diversity",
    "explain",
    "explain_picture",
    "find_pictures",
    "index_of",
    "load_clip",
    "look",
    "nearest",
    "opened",
    "rank",
    "score",
    "search",
    "similarity",
    "sought",
    "terms_of",
]
