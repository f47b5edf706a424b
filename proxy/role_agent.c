/* role_agent: `postern agent FILE`: configuration, and what people see of a failed start. */
#include "role_options.h"
#include "roles_priv.h"

#include <postern/agent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct role_option OPTIONS[] = {
    ROLE_FLAG("--attest-fallback", struct agent_options, force_fallback,
              "attest as on a kernel without SO_PEERPIDFD (Linux before 6.5);\nfor tests"),
};
static const struct role_use USE = {
    .command = "agent",
    .uses = ROLE_USES("agent [--attest-fallback] FILE", "agent proxies [OPTIONS]",
                      "agent policy push|stage|promote|rollback|status ...",
                      "agent readiness [OPTIONS]", "agent attest [--config FILE] [--json] PID"),
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

static int run(const struct agent_options *options)
{
    struct log *log = log_new_fd(STDERR_FILENO, options->conf->log_level, "supervisor");
    struct err err = ERR_INIT;
    int status = 0;

    if (agent_run(options, log, &err) == -1) {
        log_failure(log, LOG_ERROR, "agent_failed", &err);
        status = err.code == ERR_CONFIG || err.code == ERR_USAGE ? 2 : 1;
    } else {
        log_msg(log, LOG_INFO, "stopped", "the agent has ended");
    }
    log_free(log);
    return status;
}

int agent_main(int argc, char **argv)
{
    struct agent_options options = {.conf = NULL};
    struct conf_diag *diag = NULL;
    struct conf_agent *conf = NULL;
    int status;

    if (argc > 1 && strcmp(argv[1], "proxies") == 0) {
        return agent_proxies_main(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "policy") == 0) {
        return agent_policy_main(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "readiness") == 0) {
        return readiness_main(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "attest") == 0) {
        return attest_main(argc - 1, argv + 1);
    }
    if (!role_options(&USE, &argc, argv, &options, &status)) {
        return status;
    }
    if (argc != 2) {
        return role_misuse(&USE, "expected the agent's file");
    }
    status = 2;
    diag = conf_diag_new();
    if (conf_load_agent(argv[1], diag, &conf) == 0) {
        options.conf = conf;
        status = run(&options);
    } else {
        role_print_diag(diag);
    }
    conf_agent_free(conf);
    conf_diag_free(diag);
    if (options.conf != NULL) {
        _exit(status); /* no exit handlers: what they would do is not in the supervisor's list */
    }
    return status;
}
