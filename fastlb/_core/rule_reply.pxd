# What a rule answers with: the lines of a head and a body, from whatever it gave, checked.

# The bytes of a body; str becomes UTF-8.
cdef bytes reply_body_of(object body)
# Field lines with their CRLFs, and the status in `code`.
cdef bytes reply_fields_of(object status, object headers, object content_type, bytes body,
                           int* code)
cdef bytes redirect_fields(object status, object url, int* code)
