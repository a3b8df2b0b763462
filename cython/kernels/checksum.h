/* checksum.h - CRC32C (Castagnoli), the checksum of container bytes. */
#ifndef EI_CHECKSUM_H
#define EI_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>

/* CRC32C of n bytes, continuing from the CRC of what came before (0 at the start).  Any alignment; safe from any thread. */
uint32_t ei_crc32c(uint32_t crc, const void *bytes, size_t n);

/* the same without special instructions, for tests and for CPUs that have none */
uint32_t ei_crc32c_portable(uint32_t crc, const void *bytes, size_t n);

#endif
