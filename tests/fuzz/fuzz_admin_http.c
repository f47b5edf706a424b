/* The head of a scraper's request: the verdict does not depend on how the bytes arrive; whatever is
 * refused has a status to refuse with. */
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
    int status = 0;
    enum admin_parse whole = admin_parse_http(text, size, &name, &status);
    const char *end = size > 0 ? memmem(text, size, "\r\n\r\n", 4) : NULL;
    size_t head = end != NULL ? (size_t)(end - text) + 4 : size;
    require(whole != ADMIN_MORE || (end == NULL && status == 0));
    for (size_t n = 0; n < head && n < 1024; n++) {
        struct str part = STR_NONE;
        int none = 0;
        require(admin_parse_http(text, n, &part, &none) == ADMIN_MORE && none == 0);
    }
    struct str alone = STR_NONE;
    int again = 0;
    if (end != NULL) {
        require(admin_parse_http(text, head, &alone, &again) == whole && again == status &&
                str_eq(alone, name));
    }
    if (whole == ADMIN_OK) {
        require(status == 200 && name.n > 0 && name.p[-1] == '/' && name.p[-2] == ' ' &&
                name.p[name.n] == ' ' && str_has_prefix((struct str){text, size}, STR_LIT("GET ")));
    }
    if (whole == ADMIN_BAD) {
        require(status == 400 || status == 404 || status == 405 || status == 431);
    }
    return 0;
}
