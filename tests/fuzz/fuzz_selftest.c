/* Must abort on its seed: proves that a replay can fail. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 4 && memcmp(data, "fail", 4) == 0) {
        fprintf(stderr, "selftest: found what it must find\n");
        exit(1);
    }
    return 0;
}
