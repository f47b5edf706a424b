/* role_audit: `postern audit verify FILE...`: is an audit log what a process wrote. */
#include "role_options.h"
#include "roles_priv.h"

#include <errno.h>
#include <limits.h>
#include <postern/audit_verify.h>
#include <postern/err.h>
#include <postern/jsonl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool take_head(void *verify, const char *text)
{
    struct audit_verify *v = verify;
    char line[200];
    struct jsonl l;
    const char *colon = strchr(text, ':');
    if (colon == NULL || strlen(colon + 1) != (size_t)2 * AUDIT_HASH_SIZE ||
        !str_to_u64((struct str){text, (size_t)(colon - text)}, UINT64_MAX, &v->want_seq) ||
        v->want_seq == 0) {
        return false;
    }
    int n = snprintf(line, sizeof(line), "{\"head\":\"%s\"}", colon + 1);
    return n > 0 && jsonl_parse((struct str){line, (size_t)n}, &l) &&
           jsonl_get_hex(&l, "head", v->want, sizeof(v->want));
}

static const struct role_option OPTIONS[] = {
    ROLE_TAKE("--head", "SEQ:SHA256", take_head,
              "a line that must be there, as `postern status` told it"),
};
static const struct role_use USE = {
    .command = "audit",
    .uses = ROLE_USES("audit verify [--head SEQ:SHA256] FILE..."),
    .about = "FILE...: of one log, the oldest first: PATH.00000001 PATH.00000002 PATH\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = INT_MAX,
};

/* False: it was said what is wrong. */
static bool take_file(const char *path, struct audit_verify *v)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    uint64_t number = 0;
    const char *wrong = NULL;
    ssize_t n;
    if (f == NULL) {
        fprintf(stderr, "postern: cannot open %s: %s\n", path, strerrordesc_np(errno));
        return false;
    }
    audit_verify_file(v);
    while (wrong == NULL && (n = getline(&line, &size, f)) > 0) {
        bool ended = line[n - 1] == '\n';
        number++;
        wrong = audit_verify_line(v, (struct str){line, (size_t)n - (ended ? 1 : 0)}, ended);
    }
    bool unread = ferror(f) != 0;
    free(line);
    (void)fclose(f);
    if (wrong != NULL || unread) {
        printf("%s:%llu: %s\n", path, (unsigned long long)number,
               unread ? "cannot be read" : wrong);
    }
    return wrong == NULL && !unread;
}

static int verdict(const struct audit_verify *v, const char *last)
{
    const char *wrong = audit_verify_end(v);
    if (wrong != NULL) {
        printf("%s: %s\n", last, wrong);
        return 1;
    }
    printf("good: %llu lines, %llu decisions, %llu denied; %llu lost, as the log says; %llu torn\n",
           (unsigned long long)v->lines, (unsigned long long)v->decisions,
           (unsigned long long)v->denied, (unsigned long long)v->lost, (unsigned long long)v->torn);
    if (!v->chained) {
        printf("not chained: that no line was changed cannot be told\n");
        return 0;
    }
    printf("head %llu:", (unsigned long long)v->seq);
    for (size_t i = 0; i < AUDIT_HASH_SIZE; i++) {
        printf("%02x", v->head[i]);
    }
    printf("\n");
    return 0;
}

int audit_main(int argc, char **argv)
{
    struct audit_verify v = AUDIT_VERIFY_INIT;
    int status;
    bool good = true;
    if (!role_options(&USE, &argc, argv, &v, &status)) {
        return status;
    }
    if (argc < 3 || strcmp(argv[1], "verify") != 0) {
        return role_misuse(&USE, "expected `verify` and files");
    }
    status = 1;
    for (int i = 2; good && i < argc; i++) {
        good = take_file(argv[i], &v);
    }
    if (good) {
        status = verdict(&v, argv[argc - 1]);
    }
    audit_verify_deinit(&v);
    return status;
}
