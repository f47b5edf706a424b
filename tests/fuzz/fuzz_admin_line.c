/* The question on the admin socket: the verdict does not depend on how the bytes arrive, nor on
 * what follows the line, and an accepted name holds nothing that JSON or a log would have to
 * escape. */
#include <postern/admin.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct str name = STR_NONE;
    enum admin_parse whole = admin_parse_line(text, size, &name);
    const char *end = size > 0 ? memchr(text, '\n', size) : NULL;
    size_t line = end != NULL ? (size_t)(end - text) + 1 : size;
    require(whole != ADMIN_MORE || end == NULL);
    for (size_t n = 0; n < line && n < 4096; n++) {
        struct str part = STR_NONE;
        require(admin_parse_line(text, n, &part) == ADMIN_MORE && part.p == NULL);
    }
    struct str alone = STR_NONE;
    if (end != NULL) {
        require(admin_parse_line(text, line, &alone) == whole && str_eq(alone, name));
    }
    if (whole == ADMIN_OK) {
        require(name.p == text + 4 && name.p + name.n == end && name.n > 0 && name.n <= 128);
        for (size_t i = 0; i < name.n; i++) {
            require(name.p[i] > 0x20 && name.p[i] < 0x7f && name.p[i] != '"' && name.p[i] != '\\');
        }
    }
    return 0;
}
