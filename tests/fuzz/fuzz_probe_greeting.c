/* Greetings of databases. Property: once more bytes are not wanted, fewer were, and a verdict that
 * is final for a prefix is not taken back but by bytes that may not be there. */
#include <stdlib.h>

#include "probe_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum greeting whole = greeting_mysql(data, size);
    enum greeting seen = GREETING_MORE;

    for (size_t n = 0; n <= size && n <= GREETING_MYSQL_MAX && seen == GREETING_MORE; n++) {
        seen = greeting_mysql(data, n);
    }
    if (seen == GREETING_MORE ? whole != GREETING_MORE && size <= GREETING_MYSQL_MAX
                              : whole != seen && whole != GREETING_BAD) {
        abort();
    }
    (void)greeting_postgres(data, size);
    return 0;
}
