/*
 * The command line: options of a command and of the library, parsed by their tables. Called by main.c
 * and the commands; what the library's values mean is the library's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "mem.h"

#define LONGEST_SECONDS 31536000

/* ---- The tables ---- */

void cli_option_name(const char *name, char out[64])
{
    size_t len = strlen(name);

    if (len > 61)
        len = 61;
    memcpy(out, "--", 2);
    for (size_t i = 0; i < len; i++)
        out[2 + i] = name[i] == '_' ? '-' : name[i];
    out[2 + len] = '\0';
}

static const struct cli_option *find_own(const struct cli_command *command, const char *name)
{
    for (const struct cli_option *o = command->options; o->name != NULL; o++) {
        if (strcmp(o->name, name) == 0)
            return o;
    }
    return NULL;
}

static const struct lonely_client_option *find_client(const char *name)
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);
    char dashed[64];

    for (size_t i = 0; i < count; i++) {
        cli_option_name(table[i].name, dashed);
        if (strcmp(dashed + 2, name) == 0)
            return &table[i];
    }
    return NULL;
}

/* ---- Parsing ---- */

static void add_given(struct cli_args *args, const char *name, const char *value, bool of_client)
{
    args->given = mem_realloc(args->given, (args->given_count + 1) * sizeof(*args->given));
    args->given[args->given_count++] = (struct cli_given){ name, value, of_client };
}

static bool add_operand(struct cli_args *args, const char *text)
{
    if (args->operand_count == args->command->max_operands) {
        cli_complain("%s: unexpected argument; see lonelypsc %s --help", text, args->command->name);
        return false;
    }
    args->operands =
        mem_realloc(args->operands, (args->operand_count + 1) * sizeof(*args->operands));
    args->operands[args->operand_count++] = text;
    return true;
}

/* "--name=value", or "--name" and the next argument. */
static bool take_option(struct cli_args *args, char **argv, int argc, int *i)
{
    char *name = argv[*i] + 2, *equals = strchr(name, '=');
    const struct cli_option *own;
    const struct lonely_client_option *of_client;
    bool wants_value;

    if (equals != NULL)
        *equals = '\0';
    own = find_own(args->command, name);
    of_client = args->command->takes_client_options ? find_client(name) : NULL;
    if (own == NULL && of_client == NULL) {
        cli_complain("--%s: unknown option; see lonelypsc %s --help", name, args->command->name);
        return false;
    }
    wants_value = own == NULL || own->value != NULL;
    if (!wants_value && equals != NULL) {
        cli_complain("--%s: takes no value", name);
        return false;
    }
    if (wants_value && equals == NULL && ++*i == argc) {
        cli_complain("--%s: needs a value", name);
        return false;
    }
    if (!wants_value)
        add_given(args, own->name, "", false);
    else
        add_given(args, own != NULL ? own->name : name, equals != NULL ? equals + 1 : argv[*i],
                  own == NULL);
    return true;
}

static bool parse(struct cli_args *args, int argc, char **argv)
{
    bool options_end = false;

    for (int i = 0; i < argc; i++) {
        bool is_option = !options_end && argv[i][0] == '-' && argv[i][1] != '\0';

        if (is_option && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (is_option && argv[i][1] != '-') {
            cli_complain("%s: unknown option; see lonelypsc %s --help", argv[i],
                         args->command->name);
            return false;
        } else if (is_option ? !take_option(args, argv, argc, &i) : !add_operand(args, argv[i])) {
            return false;
        }
    }
    return true;
}

/* ---- The library's options ---- */

/* The URL with the scheme of --transport; "HOST:PORT" alone is enough then. The caller frees it. */
static char *with_transport(const char *url, const char *transport)
{
    static const char *const families[] = { "http", "ws", "tcp" };
    const char *rest = strstr(url, "://");
    bool secure = rest != NULL && rest > url && rest[-1] == 's' && strncmp(url, "ws:", 3) != 0;
    bool known = rest == NULL;
    size_t size = strlen(url) + 16;
    char *text;

    for (size_t i = 0; i < 3 && rest != NULL; i++) {
        size_t len = strlen(families[i]);

        known = known || (strncmp(url, families[i], len) == 0 &&
                          (url + len == rest || (url[len] == 's' && url + len + 1 == rest)));
    }
    if (!known) /* the library says what is wrong with it */
        return mem_strdup(url);
    text = mem_alloc(size);
    snprintf(text, size, "%s%s://%s", transport, secure ? "s" : "", rest != NULL ? rest + 3 : url);
    return text;
}

/* "max_frame: ..." of the library is "--max-frame: ..." here. */
static void complain_of(const struct lonely_client_why *why)
{
    size_t len = strcspn(why->text, ":, ");
    char name[64], dashed[64];

    if (len < sizeof(name)) {
        snprintf(name, sizeof(name), "%.*s", (int)len, why->text);
        cli_option_name(name, dashed);
        if (find_client(dashed + 2) != NULL) {
            cli_complain("%s%s", dashed, why->text + len);
            return;
        }
    }
    cli_complain("%s", why->text);
}

static bool set_client_option(struct cli_args *args, const char *name, const char *value)
{
    struct lonely_client_why why = { "" };

    if (lonely_client_options_set(args->options, name, value, &why) == LONELY_CLIENT_OK)
        return true;
    complain_of(&why);
    return false;
}

char *cli_next_broadcaster(const struct cli_args *args, size_t *at)
{
    const char *transport = cli_value(args, "transport");
    const char *url = cli_next_value(args, "broadcaster", at);

    if (url == NULL)
        return NULL;
    return transport != NULL ? with_transport(url, transport) : mem_strdup(url);
}

static bool set_broadcasters(struct cli_args *args)
{
    bool good = true;
    char *url;

    for (size_t at = 0; good && (url = cli_next_broadcaster(args, &at)) != NULL; mem_free(url))
        good = set_client_option(args, "broadcaster", url);
    return good;
}

static bool set_others(struct cli_args *args)
{
    for (size_t i = 0; i < args->given_count; i++) {
        const struct cli_given *given = &args->given[i];
        const char *name = given->of_client ? find_client(given->name)->name : NULL;

        if (name != NULL && strcmp(name, "broadcaster") != 0 &&
            !set_client_option(args, name, given->value))
            return false;
    }
    return true;
}

static bool set_client_options(struct cli_args *args)
{
    if (cli_choice(args, "transport", "http|ws|tcp", 0) < 0 || !set_others(args) ||
        !set_broadcasters(args))
        return false;
    if (!args->command->takes_client_options || cli_value(args, "broadcaster") != NULL)
        return true;
    cli_complain("--broadcaster: at least one is needed, such as http://127.0.0.1:3003");
    return false;
}

bool cli_only_broadcaster(struct cli_args *args, const char *url)
{
    lonely_client_options_destroy(args->options);
    args->options = lonely_client_options_create();
    return args->options != NULL && set_others(args) && set_client_option(args, "broadcaster", url);
}

bool cli_args_init(struct cli_args *args, const struct cli_command *command, int argc, char **argv)
{
    *args = (struct cli_args){ .command = command };
    args->options = lonely_client_options_create();
    if (args->options == NULL) {
        cli_complain("%s", lonely_client_error_str(LONELY_CLIENT_NO_MEMORY));
        return false;
    }
    return parse(args, argc, argv) && set_client_options(args);
}

void cli_args_fini(struct cli_args *args)
{
    lonely_client_options_destroy(args->options);
    mem_free(args->given);
    mem_free(args->operands);
    *args = (struct cli_args){ 0 };
}

void cli_default(struct cli_args *args, const char *name, const char *value)
{
    char dashed[64];

    cli_option_name(name, dashed);
    if (cli_value(args, dashed + 2) == NULL)
        lonely_client_options_set(args->options, name, value, NULL);
}

/* ---- Values ---- */

const char *cli_next_value(const struct cli_args *args, const char *name, size_t *at)
{
    while (*at < args->given_count) {
        const struct cli_given *given = &args->given[(*at)++];

        if (strcmp(given->name, name) == 0)
            return given->value;
    }
    return NULL;
}

const char *cli_value(const struct cli_args *args, const char *name)
{
    const char *last = NULL, *value;

    for (size_t at = 0; (value = cli_next_value(args, name, &at)) != NULL;)
        last = value;
    return last;
}

bool cli_number(const struct cli_args *args, const char *name, uint64_t min, uint64_t max,
                uint64_t *out)
{
    const char *text = cli_value(args, name);
    unsigned long long value = 0;
    char *end;

    if (text == NULL)
        return true;
    errno = 0;
    if (text[0] >= '0' && text[0] <= '9')
        value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        cli_complain("--%s: %s: expected a number from %llu to %llu", name, text,
                     (unsigned long long)min, (unsigned long long)max);
        return false;
    }
    *out = value;
    return true;
}

bool cli_seconds(const struct cli_args *args, const char *name, int64_t *out_ms)
{
    const char *text = cli_value(args, name);
    char *end;
    double value;

    if (text == NULL)
        return true;
    value = strtod(text, &end);
    if (strspn(text, "0123456789.") != strlen(text) || end == text || *end != '\0' ||
        value > LONGEST_SECONDS) {
        cli_complain("--%s: %s: expected seconds, such as 10 or 0.5", name, text);
        return false;
    }
    *out_ms = (int64_t)(value * 1000);
    return true;
}

int cli_word_index(const char *words, const char *word, size_t len)
{
    for (int i = 0;; i++) {
        size_t n = strcspn(words, "|");

        if (n == len && memcmp(words, word, n) == 0)
            return i;
        if (words[n] == '\0')
            return -1;
        words += n + 1;
    }
}

int cli_choice(const struct cli_args *args, const char *name, const char *words, int fallback)
{
    const char *text = cli_value(args, name);
    int i;

    if (text == NULL)
        return fallback;
    i = cli_word_index(words, text, strlen(text));
    if (i < 0)
        cli_complain("--%s: %s: expected %s", name, text, words);
    return i;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool cli_hex(const char *name, const char *digits, struct lonely_span *out)
{
    size_t len = strlen(digits) / 2;
    uint8_t *bytes = mem_alloc(len + 1);
    bool good = strlen(digits) % 2 == 0;

    for (size_t i = 0; good && i < len; i++) {
        int high = digit_value(digits[2 * i]), low = digit_value(digits[2 * i + 1]);

        good = high >= 0 && low >= 0;
        bytes[i] = good ? (uint8_t)(high * 16 + low) : 0;
    }
    *out = (struct lonely_span){ bytes, len };
    if (good)
        return true;
    mem_free(bytes);
    cli_complain("--%s: %s: expected hexadecimal digits, two a byte", name, digits);
    return false;
}

/* ---- Opening ---- */

struct lonely_client *cli_open(const struct cli_args *args, enum cli_code *code)
{
    struct lonely_client *c;
    struct lonely_client_why why = { "" };
    enum lonely_client_error err = lonely_client_open(args->options, &c, &why);

    *code = err == LONELY_CLIENT_OK         ? CLI_GOOD
            : err == LONELY_CLIENT_ARGUMENT ? CLI_USAGE
                                            : CLI_FAILED;
    if (err != LONELY_CLIENT_OK)
        complain_of(&why);
    return c;
}
