"""Functions on existing image files: score, rank, classify, caption, explain and search them with CLIP."""

from clipgen.gallery.api import RankedImage, caption, classify, diversity, load_clip, rank, score, search, similarity
from clipgen.gallery.explanation import Explanation, explain, explain_image
from clipgen.gallery.features import iter_captions, iter_image_features, open_images
from clipgen.gallery.image_paths import find_images
from clipgen.gallery.image_search import SearchHit, nearest_images, parse_query, query_features
from clipgen.gallery.index import ImageIndex, open_index

__all__ = [
    "Explanation",
    "ImageIndex",
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
