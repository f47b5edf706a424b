/* options: what the operator asks for, and whether it can stand in a pod. */
#include "inject_priv.h"

#include <string.h>

void inject_options_init(struct inject_options *ret)
{
    *ret = (struct inject_options){.pull_policy = "IfNotPresent",
                                   .proxy_uid = INJECT_UID,
                                   .agent_dir = "/run/postern",
                                   .agent_socket = "agent.sock",
                                   .cpu = "10m",
                                   .memory = "32Mi",
                                   .log_level = LOG_INFO,
                                   .access_log = CONF_ACCESS_ALL};
}

static bool only(const char *text, const char *bytes, size_t max)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if (strchr(letters, text[i]) == NULL && strchr(bytes, text[i]) == NULL) {
            return false;
        }
    }
    return n > 0 && n <= max;
}

static int check_image(const char *option, const char *image, struct err *err)
{
    if (!only(image, "._-/:@", 512) || strchr("._-/:@", image[0]) != NULL) {
        err_set(err, ERR_USAGE, "%s %.100s: not the name of an image", option, image);
        return err_expected(err, "such as registry.example/postern:0.1");
    }
    return 0;
}

/* 10m, 1.5, 32Mi */
static int check_quantity(const char *option, const char *text, struct err *err)
{
    static const char *const units[] = {"", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", NULL};
    size_t whole = strspn(text, "0123456789"), n = whole;
    if (text[n] == '.') {
        n += 1 + strspn(text + n + 1, "0123456789");
    }
    for (const char *const *u = units; whole > 0 && n <= 18 && *u != NULL; u++) {
        if (strcmp(text + n, *u) == 0) {
            return 0;
        }
    }
    err_set(err, ERR_USAGE, "%s %.40s: not a quantity", option, text);
    return err_expected(err, "such as 10m, 0.5, 32Mi");
}

int inject_options_check(const struct inject_options *o, struct err *err)
{
    if (o->image == NULL) {
        err_set(err, ERR_USAGE, "no image is named for the sidecar");
        return err_advise(err, "name one: --image registry.example/postern:0.1");
    }
    if (check_image("--image", o->image, err) != 0 ||
        (o->rules_image != NULL && check_image("--init-image", o->rules_image, err) != 0)) {
        return -1;
    }
    if (strcmp(o->pull_policy, "IfNotPresent") != 0 && strcmp(o->pull_policy, "Always") != 0 &&
        strcmp(o->pull_policy, "Never") != 0) {
        err_set(err, ERR_USAGE, "--pull-policy %.40s: not one of its values", o->pull_policy);
        return err_expected(err, "IfNotPresent, Always or Never");
    }
    if (o->proxy_uid == 0 || o->proxy_uid > INT32_MAX) {
        err_set(err, ERR_USAGE, "--proxy-uid %u: not a uid that the sidecar may have",
                (unsigned)o->proxy_uid);
        return err_expected(err, "from 1 to %d, and no application's", INT32_MAX);
    }
    if (!only(o->agent_dir, "._-/", 200) || o->agent_dir[0] != '/' ||
        strstr(o->agent_dir, "..") != NULL) {
        err_set(err, ERR_USAGE, "--agent-directory %.100s: not the path of a directory",
                o->agent_dir);
        return err_expected(err, "an absolute path, such as /run/postern");
    }
    if (!only(o->agent_socket, "._-", 64) || strstr(o->agent_socket, "..") != NULL) {
        err_set(err, ERR_USAGE, "--agent-socket %.80s: not a name in that directory",
                o->agent_socket);
        return err_expected(err, "such as agent.sock");
    }
    if (check_quantity("--cpu", o->cpu, err) != 0 ||
        check_quantity("--memory", o->memory, err) != 0 ||
        (o->cpu_limit != NULL && check_quantity("--cpu-limit", o->cpu_limit, err) != 0) ||
        (o->memory_limit != NULL && check_quantity("--memory-limit", o->memory_limit, err) != 0)) {
        return -1;
    }
    return 0;
}
