/* tests/cuda/emu_poison.h -- AddressSanitizer's marks on memory, nothing without it. */
#ifndef LRD_EMU_POISON_H
#define LRD_EMU_POISON_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ /* clang's word for gcc's */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#endif /* LRD_EMU_POISON_H */
