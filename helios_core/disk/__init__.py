"""Files that are read and written safely: whole or not at all, under names that every system takes, once."""

from . import journal, json_text, owned, safe_files
from .file_names import check_name, inside, plain, shown
from .foreign import reading
from .journal import Journal
from .json_text import as_object, parse_object, read_object
from .json_text import parse as parse_json
from .json_text import read as read_json_text
from .mirror import Mirror, is_url
from .safe_files import (
    beside,
    check_folder,
    check_new,
    check_writable,
    free_name,
    identity,
    new_folder,
    own_folder,
    replacing,
    write,
)
from .store import Store, digest, fingerprint, link

__all__ = [
    "Journal",
    "Mirror",
    "Store",
    "as_object",
    "beside",
    "check_folder",
    "check_name",
    "check_new",
    "check_writable",
    "digest",
    "fingerprint",
    "free_name",
    "identity",
    "inside",
    "is_url",
    "journal",
    "json_text",
    "link",
    "new_folder",
    "own_folder",
    "owned",
    "parse_json",
    "parse_object",
    "plain",
    "read_json_text",
    "read_object",
    "reading",
    "replacing",
    "safe_files",
    "shown",
    "write",
]
