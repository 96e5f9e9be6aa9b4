# Session ids that stand in paths (RFC 3986 3.3): the parameter of a segment, as servlet containers
# write it ("/cart;jsessionid=1A2B/items"), and the whole segments of ASP.NET ("/(S(lit3py55))/").
# Nothing is decoded and nothing copied: a delimiter that is percent-encoded is none. What an id
# means, and which of several counts, is the methods' affair.

from fastlb._core.message cimport Head
from fastlb._core.slice cimport Slice

# The path of a request without its query, in any form of its target.
cdef Slice path_of_request(const Head* head, const char* buf) noexcept nogil
# The path of a URI or relative reference (RFC 3986 4.1), such as a Location; may be empty.
cdef Slice path_of_reference(Slice reference) noexcept nogil
# The value of the next parameter called `name` (exact, case counts); `path` is then what follows
# it. False when there is none. The value may be empty.
cdef bint path_parameter_next(Slice* path, Slice name, Slice* value) noexcept nogil
# The first session id that a whole segment consists of:
#   segment = "(" 1*( ALPHA "(" text ")" ) ")"     the text of "S" or "s" is the id
#           / "(" 24( %x61-7A / %x30-35 ) ")"      ASP.NET 1.x
# Not empty, at most SESSION_ID_BYTES_MAX.
cdef bint path_asp_id(Slice path, Slice* id) noexcept nogil
