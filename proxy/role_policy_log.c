/* role_policy_log: `postern policy replay` and `suggest`: what proxies have logged, and policies.
 */
#include "role_policy.h"

#include <errno.h>
#include <postern/os.h>
#include <postern/policy_tools.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles_priv.h"

struct reading {
    void (*on_record)(void *arg, const struct policy_record *r);
    void *arg;
    size_t taken, bad;
};

static void read_lines(struct reading *r, FILE *file)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    while ((n = getline(&line, &size, file)) >= 0) {
        struct policy_record record;
        size_t len = (size_t)n;
        len -= len > 0 && line[len - 1] == '\n';
        switch (policy_record_parse((struct str){line, len}, &record)) {
        case POLICY_RECORD_DECISION:
            r->taken++;
            r->on_record(r->arg, &record);
            policy_record_deinit(&record);
            break;
        case POLICY_RECORD_BAD:
            r->bad++;
            break;
        case POLICY_RECORD_OTHER:
            break;
        }
    }
    free(line);
}

/* "-": standard input. 0, or 2 after telling why. */
static int read_log(struct reading *r, const char *path)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "re");
    if (file == NULL) {
        fprintf(stderr, "postern: %s: %s\n", path, strerrordesc_np(errno));
        return 2;
    }
    read_lines(r, file);
    int rc = 0;
    if (ferror(file) != 0) {
        fprintf(stderr, "postern: %s: cannot be read to its end\n", path);
        rc = 2;
    }
    if (!standard) {
        (void)fclose(file);
    }
    return rc;
}

static void tell_bad(const struct reading *r)
{
    if (r->bad > 0) {
        fprintf(stderr, "postern: %zu lines are no JSON, or decisions without what makes one\n",
                r->bad);
    }
    if (r->taken == 0) {
        fprintf(stderr, "postern: no decision of a policy is in it; with 'log.access: denied' the "
                        "allowed ones are not logged\n");
    }
}

/* --- replay ------------------------------------------------------------------------------------
 */
static void replay_record(void *arg, const struct policy_record *r)
{
    policy_replay_add(arg, r);
}

static int replay(const char *log, const struct role_policy *p, bool json)
{
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct policy_replay *replay = policy_replay_new(p->conf, p->policy, os_wall_s(), &err);
    if (replay == NULL) {
        return role_say("policy replay", &err, 2);
    }
    struct reading r = {.on_record = replay_record, .arg = replay};
    int rc = read_log(&r, log);
    if (rc == 0) {
        struct policy_replay_count count;
        tell_bad(&r);
        policy_replay_counts(replay, &count);
        if (count.too_many) {
            fprintf(stderr, "postern: too many different callers and targets: some are counted and "
                            "not shown\n");
        }
        rc = policy_replay_print(replay, json, &out) ? policy_print(&out) : 2;
        rc = rc == 0 && count.changed + count.maybe > 0 ? 1 : rc;
    }
    buf_reset(&out);
    policy_replay_free(replay);
    return rc;
}

int policy_replay_main(int argc, char **argv)
{
    bool json = false;
    const char *for_whom = NULL;
    int first = policy_take_json_for(argc, argv, &json, &for_whom);
    if (argc - first != 2) {
        return policy_usage();
    }
    struct role_policy p;
    int rc = policy_load(argv[first + 1], for_whom, &p);
    if (rc == 0) {
        rc = replay(argv[first], &p, json);
    }
    policy_unload(&p);
    return rc;
}

/* --- suggest -----------------------------------------------------------------------------------
 */
static void suggest_record(void *arg, const struct policy_record *r)
{
    policy_suggest_add(arg, r);
}

/* What the policy does not say, so that nobody believes it does. */
static int tell_left_out(const struct policy_suggest_count *c)
{
    if (c->denied > 0) {
        fprintf(stderr, "postern: %zu denied decisions are left out (--denied takes them)\n",
                c->denied);
    }
    if (c->no_identity > 0) {
        fprintf(stderr,
                "postern: %zu decisions about callers without identity are left out: no rule "
                "can allow these alone\n",
                c->no_identity);
    }
    if (c->unspeakable > 0) {
        fprintf(stderr,
                "postern: %zu decisions about names that no rule can say exactly are left "
                "out\n",
                c->unspeakable);
    }
    if (c->too_many) {
        fprintf(stderr, "postern: too many different callers and targets: the last are left out\n");
    }
    return c->no_identity + c->unspeakable > 0 || c->too_many ? 1 : 0;
}

int policy_suggest_main(int argc, char **argv)
{
    struct policy_suggest_options o = {.paths = false};
    int first = 1;
    for (; first < argc && strncmp(argv[first], "--", 2) == 0; first++) {
        if (strcmp(argv[first], "--paths") == 0) {
            o.paths = true;
        } else if (strcmp(argv[first], "--denied") == 0) {
            o.denied = true;
        } else {
            return policy_usage();
        }
    }
    if (first == argc) {
        return policy_usage();
    }
    struct policy_suggest *suggest = policy_suggest_new(&o);
    struct reading r = {.on_record = suggest_record, .arg = suggest};
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct err err = ERR_INIT;
    int rc = 0;
    for (int i = first; i < argc && rc == 0; i++) {
        rc = read_log(&r, argv[i]);
    }
    if (rc == 0 && policy_suggest_write(suggest, &out, &err) != 0) {
        rc = role_say("policy suggest", &err, 2);
    }
    if (rc == 0) {
        struct policy_suggest_count count;
        policy_suggest_counts(suggest, &count);
        tell_bad(&r);
        rc = policy_print(&out);
        int left = tell_left_out(&count);
        rc = rc == 0 ? left : rc;
    }
    buf_reset(&out);
    policy_suggest_free(suggest);
    return rc;
}
