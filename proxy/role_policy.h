/* role_policy: what the files of `postern policy` share. */
#ifndef POSTERN_ROLE_POLICY_H
#define POSTERN_ROLE_POLICY_H

#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/policy.h>
#include <postern/policy_source.h>

struct role_policy {
    struct conf_policy *conf;
    struct policy *policy;
};
/* For whom a file is read that may be Istio's or Kubernetes': a Proxy, Gateway or Agent file; NULL:
 * what `policy convert` takes for granted. Else 2, after telling why. */
int policy_source_for(const char *path, struct policy_source *ret);
/* A file, compiled; warnings are told. Else 2, after telling why. */
int policy_load(const char *path, const char *for_whom, struct role_policy *ret);
/* Takes [--json] [--for FILE]; where the other arguments begin. */
int policy_take_json_for(int argc, char **argv, bool *json, const char **for_whom);
/* What is doubtful about a file that is theirs. */
void policy_tell_doubts(const struct conf_diag *doubts);
void policy_unload(struct role_policy *p);
/* To standard output; else 2, after telling why. */
int policy_print(const struct buf *b);
/* Tells how the commands are used; 2. */
int policy_usage(void);

/* Of a running proxy. */
struct policy_running {
    const char *socket;   /* its admin socket */
    const char *decision; /* NULL: the last ones are listed */
    const char *policy;   /* a file, in place of what it runs; NULL: none */
    const char *for_whom; /* it is read for; may be NULL */
    bool json;
};
int policy_explain_running(const struct policy_running *o);

int policy_explain_main(int argc, char **argv);
int policy_lint_main(int argc, char **argv);
int policy_diff_main(int argc, char **argv);
int policy_replay_main(int argc, char **argv);
int policy_suggest_main(int argc, char **argv);
int policy_convert_main(int argc, char **argv);

#endif
