/* Frames that a subscriber receives; the property is in fuzz_frame.h. */
#include "fuzz_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_frame(LONELY_B2S, data, size);
    return 0;
}
