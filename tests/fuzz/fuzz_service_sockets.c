/* The variables by which a service manager hands sockets over, three texts separated by NUL: what
 * is taken is as many names as were said, each of them printable, and together they are the text.
 */
#include <postern/service_manager.h>

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
    char text[2048];
    const char *parts[3] = {NULL, NULL, NULL};
    struct str names[SERVICE_SOCKETS_MAX];
    if (size >= sizeof(text)) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    size_t at = 0;
    for (size_t i = 0; i < 3 && at <= size; i++) {
        parts[i] = text + at;
        at += strlen(parts[i]) + 1;
    }
    int n = service_sockets_parse(parts[0], parts[1], parts[2], 4711, names, NULL);
    require(n >= -1 && n <= SERVICE_SOCKETS_MAX);
    require(n <= 0 || strcmp(parts[0] + strspn(parts[0], "0"), "4711") == 0);
    size_t length = n > 0 ? (size_t)n - 1 : 0;
    for (int i = 0; i < n; i++) {
        require(names[i].n > 0 && names[i].n <= SERVICE_NAME_MAX);
        require(parts[2] == NULL || memchr(names[i].p, ':', names[i].n) == NULL);
        length += names[i].n;
    }
    require(n <= 0 || parts[2] == NULL || length == strlen(parts[2]));
    return 0;
}
