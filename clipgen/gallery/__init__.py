"""Pictures that are there, from wherever: opened, seen by CLIP, scored, ranked, classified, explained and found."""

from clipgen.gallery.api import RankedImage, caption, classify, diversity, load_clip, rank, score, search, similarity
from clipgen.gallery.explanation import Explanation, explain, explain_image
from clipgen.gallery.features import iter_captions, iter_image_features, open_images
from clipgen.gallery.image_paths import find_images
from clipgen.gallery.index import Index, open_index
from clipgen.gallery.search import SearchHit, nearest_images, parse_query, query_features

__all__ = [
    "Explanation",
    "Index",
    "RankedImage",
    "SearchHit",
    "caption",
    "classify",
    "diversity",
    "explain",
    "explain_image",
    "find_images",
    "iter_captions",
    "iter_image_features",
    "load_clip",
    "nearest_images",
    "open_images",
    "open_index",
    "parse_query",
    "query_features",
    "rank",
    "score",
    "search",
    "similarity",
]
