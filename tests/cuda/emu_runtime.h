/* tests/cuda/emu_runtime.h -- what the parts of the emulated runtime know of each other. */
#ifndef LRD_EMU_RUNTIME_H
#define LRD_EMU_RUNTIME_H

#include "cuda_runtime.h"

/* Remembers an error for cudaGetLastError, and returns it. */
cudaError_t emu_report(cudaError_t error);

/* What may not be called while a stream (nullptr: any) is captured: an error, which spoils the capture. */
cudaError_t emu_refuse_in_capture(const emu_stream *stream);

/* Does everything that was asked for. */
void emu_finish_all();

/* Device memory may be touched from here on, or no more. */
void emu_open_memory(bool open);

/* Bytes of a device. */
size_t emu_memory_bytes();

#endif /* LRD_EMU_RUNTIME_H */
