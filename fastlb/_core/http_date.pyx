# From a count of days to the calendar: years are counted from March, so that the leap day is
# the last of its year and the months before it have the lengths of a formula (31 and 30 days
# in turn, 153 in five months).

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    DAY_S = 86400
    DAYS_TO_1970 = 719468            # from 1 March of the year 0
    DAYS_OF_400_YEARS = 146097
    DAYS_OF_100_YEARS = 36524
    DAYS_OF_4_YEARS = 1461
    THURSDAY = 4                     # 1 January 1970

cdef uint64_t LAST_SECOND = 253402300799    # of the year 9999
cdef const char* WEEKDAYS = "SunMonTueWedThuFriSat"
cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


cdef inline void _two(char* out, uint32_t value) noexcept nogil:
    out[0] = <char> (c'0' + value // 10)
    out[1] = <char> (c'0' + value % 10)


cdef void http_date_write(uint64_t seconds, char* out) noexcept nogil:
    cdef uint32_t days, second, day, passed, year, month
    if seconds > LAST_SECOND:
        seconds = LAST_SECOND
    days = <uint32_t> (seconds // DAY_S)
    second = <uint32_t> (seconds % DAY_S)
    memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", HTTP_DATE_BYTES)
    memcpy(out, WEEKDAYS + 3 * ((days + THURSDAY) % 7), 3)
    days += DAYS_TO_1970
    year = 400 * (days // DAYS_OF_400_YEARS)
    day = days % DAYS_OF_400_YEARS
    # Which year of the 400: without its leap days, each has 365.
    passed = (day - day // (DAYS_OF_4_YEARS - 1) + day // DAYS_OF_100_YEARS
              - day // (DAYS_OF_400_YEARS - 1)) // 365
    year += passed
    day -= 365 * passed + passed // 4 - passed // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    if month >= 10:                  # January and February end the year that began in March
        year += 1
    _two(out + 5, day + 1)
    memcpy(out + 8, MONTHS + 3 * ((month + 2) % 12), 3)
    _two(out + 12, year // 100)
    _two(out + 14, year % 100)
    _two(out + 17, second // 3600)
    _two(out + 20, second // 60 % 60)
    _two(out + 23, second % 60)
