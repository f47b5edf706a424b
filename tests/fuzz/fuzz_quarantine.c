/*
 * The quarantine's file, and what a person writes as its subject. Property: what is read prints and
 * reads again as the same set; a subject's spelling is its own.
 */
#include <postern/quarantine.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void try_subject(struct str s)
{
    char text[QUARANTINE_TEXT_MAX + 1], prefixed[QUARANTINE_TEXT_MAX + 16];
    char again[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind, second;

    if (quarantine_subject(s, &kind, text, NULL) == -1) {
        return;
    }
    (void)snprintf(prefixed, sizeof(prefixed), "%s%s", kind == QUARANTINE_SERIAL ? "serial:" : "",
                   text);
    require(quarantine_subject(str_of(prefixed), &second, again, NULL) == 0 && second == kind &&
            strcmp(text, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct quarantine q = {.items = NULL}, second = {.items = NULL};
    struct buf one = BUF_INIT(QUARANTINE_FILE_MAX), two = BUF_INIT(QUARANTINE_FILE_MAX);
    struct str text = {(const char *)data, size};

    try_subject(text);
    if (quarantine_parse(text, 1, &q, NULL) == 0) {
        require(quarantine_print(&q, &one) &&
                quarantine_parse(buf_str(&one), 1, &second, NULL) == 0 && second.n == q.n &&
                quarantine_print(&second, &two) && str_eq(buf_str(&one), buf_str(&two)));
        quarantine_deinit(&q);
        quarantine_deinit(&second);
    }
    buf_reset(&one);
    buf_reset(&two);
    return 0;
}
