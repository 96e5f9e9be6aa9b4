# Response, the second argument of response rules; what holds for rule_objects holds for it.

from fastlb._core.rule_call cimport RuleCall
from fastlb._core.rule_cookies cimport SetCookies
from fastlb._core.rule_message cimport Message
from fastlb._core.rule_views cimport Headers

cdef class Response:
    cdef RuleCall* call
    cdef object keeper
    cdef Message message
    cdef Headers headers_view
    cdef SetCookies cookies_view

    cdef int demand(self) except -1
    cdef int begin(self, RuleCall* call) except -1
    cdef int end(self) except -1
