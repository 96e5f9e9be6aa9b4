# Dates as HTTP and Set-Cookie write them: IMF-fixdate of RFC 9110 5.6.7, which is always GMT.
#
# Not by strftime: its names follow the process's locale, which belongs to others.

from libc.stdint cimport uint64_t

cdef enum:
    HTTP_DATE_BYTES = 29             # "Sun, 06 Nov 1994 08:49:37 GMT"

# Writes the date of `seconds` since 1970, HTTP_DATE_BYTES in all. Years have four digits: what
# is later than the end of 9999 is written as that.
cdef void http_date_write(uint64_t seconds, char* out) noexcept nogil
