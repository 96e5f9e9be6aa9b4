DEBUG: bool
VARIANT: str
