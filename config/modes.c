/* modes: the table of a Modes file: what every proxy under an agent may be told at once. */
#include <postern/conf.h>

#include "config_priv.h"

static const char *const words_plaintext[] = {"listed", "never", NULL};

static const struct field fields_modes[] = {
    KIND_FIELDS("Modes"),
    {.name = "plaintext",
     .type = TYPE_WORD,
     .words = words_plaintext,
     AT(struct conf_modes, plaintext),
     .def = "listed",
     .doc = "`listed`: as the mesh map says, by `transport: disable` and `unlisted: passthrough`. "
            "`never`: no proxy under this agent sends plaintext, whatever a map says."},
};
const struct table table_modes = {
    .name = "the file",
    .doc = "What holds for every proxy under an agent. Named by `state.modes` in an Agent. A mode "
           "takes away and never gives.",
    .size = sizeof(struct conf_modes),
    FIELDS(fields_modes),
};
