"""Recognises that memory was not enough. For the memory of a CPU, torch has no class of errors, only a text."""

_TEXTS = ("DefaultCPUAllocator:", "alloc_cpu.cpp")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of a GPU was not enough."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
