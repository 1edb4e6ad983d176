#include "config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <openssl/err.h>

#include "base/config.h"

struct token {
    char name[32];
    char *pin_file;
    unsigned sessions;
};

struct target {
    char *text;
    char *other;
    bool flag;
    unsigned number;
    uint64_t size;
    int64_t duration;
    int choice;
    struct token tokens[2];
    size_t token_count;
};

static const char *const colours[] = {"red", "green", "blue", NULL};

static const struct config_key main_keys[] = {
    {"text", CONFIG_TEXT, offsetof(struct target, text), .required = true},
    {"other-text", CONFIG_TEXT, .offset = offsetof(struct target, other)},
    {"flag", CONFIG_BOOL, .offset = offsetof(struct target, flag)},
    {"colour", CONFIG_CHOICE, offsetof(struct target, choice), .choices = colours},
};

static const struct config_key numbers_keys[] = {
    {"number", CONFIG_UNSIGNED, offsetof(struct target, number), .min = 2, .max = 20},
    {"size", CONFIG_SIZE, offsetof(struct target, size), .min = 1},
    {"duration", CONFIG_DURATION, offsetof(struct target, duration), .min = 1000, .max = 3600000000},
};

static const struct config_key token_keys[] = {
    {"pin-file", CONFIG_TEXT, offsetof(struct token, pin_file), .required = true},
    {"sessions", CONFIG_UNSIGNED, offsetof(struct token, sessions), .min = 1, .max = 8},
};

static void *token_target(void *base, const char *instance)
{
    struct target *target = base;
    if (target->token_count == COUNT(target->tokens)) {
        error_raise(ENVELOPE_E_CONFIG, "too many tokens");
        return NULL;
    }
    struct token *token = &target->tokens[target->token_count++];
    snprintf(token->name, sizeof token->name, "%s", instance);
    return token;
}

static const struct config_section sections[] = {
    {"main", main_keys, COUNT(main_keys), .required = true},
    {"numbers", numbers_keys, COUNT(numbers_keys), .required = false},
    {"token *", token_keys, COUNT(token_keys), .target = token_target},
};

static envelope_status read_text(const char *text, struct target *target)
{
    return config_read(write_config(text), sections, COUNT(sections), target);
}

static void clear(struct target *target)
{
    config_clear(sections, COUNT(sections), target);
    for (size_t i = 0; i < COUNT(target->tokens); i++)
        free(target->tokens[i].pin_file);
}

static void every_type_is_read_into_its_member(void **state)
{
    (void)state;
    struct target target = {0};
    envelope_status status = read_text("# a comment\n"
                                       "[main]\n"
                                       "text = sqlite:/var/lib/keys.db   # and another\n"
                                       "other-text = \"  a \\\"b\\\" # c \"\n"
                                       "flag = Yes\n"
                                       "colour=blue\n"
                                       "[ numbers ]\n"
                                       "number = 20\n"
                                       "size = 16MiB\n"
                                       "duration = 1h\n",
                                       &target);
    if (status)
        fail_msg("%s", error_text());
    assert_string_equal(target.text, "sqlite:/var/lib/keys.db");
    assert_string_equal(target.other, "a \"b\" # c");
    assert_true(target.flag);
    assert_int_equal(target.choice, 2);
    assert_int_equal(target.number, 20);
    assert_true(target.size == 16777216);
    assert_true(target.duration == INT64_C(3600000000));
    clear(&target);
    assert_null(target.text);
}

static void members_that_are_not_named_keep_their_defaults(void **state)
{
    (void)state;
    struct target target = {.number = 7, .duration = 5, .flag = true, .other = strdup("default")};
    assert_int_equal(read_text("[main]\ntext = a\n", &target), ENVELOPE_OK);
    assert_int_equal(target.number, 7);
    assert_true(target.duration == 5);
    assert_true(target.flag);
    assert_string_equal(target.other, "default");
    clear(&target);
}

static void booleans_come_in_eight_words(void **state)
{
    (void)state;
    static const char *const words[] = {"no", "yes", "false", "true", "off",   "on",
                                        "0",  "1",   "NO",    "Yes",  "FALSE", "True"};
    for (size_t i = 0; i < COUNT(words); i++) {
        char text[64];
        struct target target = {.flag = i % 2 == 0};
        snprintf(text, sizeof text, "[main]\ntext = a\nflag = %s\n", words[i]);
        assert_int_equal(read_text(text, &target), ENVELOPE_OK);
        assert_int_equal(target.flag, i % 2 == 1);
        clear(&target);
    }
}

static void variables_are_filled_in(void **state)
{
    (void)state;
    struct target target = {0};
    assert_int_equal(setenv("ENVELOPE_TEST_DIR", "/srv/x", 1), 0);
    assert_int_equal(
        read_text("[main]\ntext = sqlite:$ENV::ENVELOPE_TEST_DIR/keys.db\nother-text = ${main::text}-\\$5\n", &target),
        ENVELOPE_OK);
    assert_string_equal(target.text, "sqlite:/srv/x/keys.db");
    assert_string_equal(target.other, "sqlite:/srv/x/keys.db-$5");
    clear(&target);
}

static void sections_with_a_name_have_a_target_each(void **state)
{
    (void)state;
    struct target target = {0};
    envelope_status status = read_text("[main]\ntext = a\n"
                                       "[token prod]\npin-file = /pin/prod\nsessions = 3\n"
                                       "[token spare one]\npin-file = /pin/spare\n",
                                       &target);
    if (status)
        fail_msg("%s", error_text());
    assert_int_equal(target.token_count, 2);
    const struct token *prod = &target.tokens[strcmp(target.tokens[0].name, "prod") == 0 ? 0 : 1];
    const struct token *spare = &target.tokens[prod == &target.tokens[0] ? 1 : 0];
    assert_string_equal(prod->name, "prod");
    assert_string_equal(prod->pin_file, "/pin/prod");
    assert_int_equal(prod->sessions, 3);
    assert_string_equal(spare->name, "spare one");
    assert_string_equal(spare->pin_file, "/pin/spare");
    clear(&target);

    struct target crowded = {0};
    assert_raised(
        read_text("[main]\ntext = a\n[token a]\npin-file=x\n[token b]\npin-file=x\n[token c]\npin-file=x\n", &crowded),
        ENVELOPE_E_CONFIG, "too many tokens");
    clear(&crowded);
}

static void each_mistake_is_named_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *problem;
    } rows[] = {
        {"", "section [main] is missing"},
        {"[numbers]\nnumber = 5\n", "section [main] is missing"},
        {"[main]\nflag = yes\n", "key text is missing in section [main]"},
        {"[main]\ntext = a\n[token x]\nsessions = 1\n", "key pin-file is missing in section [token x]"},
        {"text = a\n", "key text stands before any section; put it under [main]"},
        {"number = 5\n[main]\ntext = a\n", "key number stands before any section; put it under [numbers]"},
        {"[default]\ntext = a\n", "before any section"},
        {"[main]\ntext = a\n[nubmers]\n", "unknown section [nubmers]; did you mean [numbers]?"},
        {"[main]\ntext = a\n[somewhere]\n", "unknown section [somewhere]; known are main, numbers or token *"},
        {"[main]\ntext = a\n[token]\n", "unknown section [token]; did you mean [token *]?"},
        {"[main]\ntext = a\nother_text = b\n", "unknown key other_text in section [main]; did you mean other-text?"},
        {"[main]\ntext = a\nTEXT = b\n", "unknown key TEXT in section [main]; did you mean text?"},
        {"[main]\ntext = a\nwindow = b\n",
         "unknown key window in section [main]; known are text, other-text, flag or colour"},
        {"[main]\ntext = a\nnumber = 5\n", "key number does not belong in section [main]; move it to [numbers]"},
        {"[main]\ntext =\n", "[main] text: has no value"},
        {"[main]\ntext = \"  \"\n", "[main] text: has no value"},
        {"[main]\ntext = a\nflag = maybe\n", "[main] flag: \"maybe\" is neither yes nor no"},
        {"[main]\ntext = a\nflag =\n", "[main] flag: \"\" is neither yes nor no"},
        {"[main]\ntext = a\ncolour = mauve\n", "[main] colour: \"mauve\" is not one of red, green or blue"},
        {"[main]\ntext = a\ncolour = Red\n", "is not one of"},
        {"[main]\ntext = a\n[numbers]\nnumber = 1\n",
         "[numbers] number: \"1\" is out of range; it must be from 2 to 20"},
        {"[main]\ntext = a\n[numbers]\nnumber = 21\n", "out of range"},
        {"[main]\ntext = a\n[numbers]\nnumber = 4294967299\n", "out of range"},
        {"[main]\ntext = a\n[numbers]\nnumber = 99999999999999999999\n", "too large"},
        {"[main]\ntext = a\n[numbers]\nnumber = -3\n", "[numbers] number: \"-3\" is not a number"},
        {"[main]\ntext = a\n[numbers]\nnumber = 1k\n", "is not a number"},
        {"[main]\ntext = a\n[numbers]\nnumber =\n", "is not a number"},
        {"[main]\ntext = a\n[numbers]\nsize = 0\n", "[numbers] size: \"0\" is out of range; it must be at least 1"},
        {"[main]\ntext = a\n[numbers]\nsize = 5 apples\n", "[numbers] size: \"5 apples\" is not a number"},
        {"[main]\ntext = a\n[numbers]\nduration = 5\n", "[numbers] duration: \"5\" has no unit"},
        {"[main]\ntext = a\n[numbers]\nduration = 61m\n",
         "[numbers] duration: \"61m\" is out of range; it must be from 1ms to 1h"},
        {"[main]\ntext = a\n[numbers]\nduration = soon\n", "is not a duration"},
        {"[main]\ntext = a\nflag\n", "line 3 has no equals sign"},
        {"[main\ntext = a\n", "line 1 opens a section without the closing ]"},
        {"[main]\ntext = a\n\n\nother-text = $nothing\n", "line 5 uses a variable that has no value"},
        {"[main]\ntext = ${main\n", "line 2 uses a variable without the closing brace"},
        {"[main]\ntext = $ENV::ENVELOPE_NO_SUCH_VARIABLE\n", "line 2 uses a variable that has no value"},
        {".include /nonexistent/envelope.d/x.cnf\n[main]\ntext = a\n", "a file named by .include cannot be read"},
        {"[main]\ntext = a\nflag = \x1b[31m\n", "flag: \"\\x1b[31m\" is neither"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct target target = {0};
        ERR_clear_error();
        error_clear();
        assert_raised(read_text(rows[i].text, &target), ENVELOPE_E_CONFIG, rows[i].problem);
        assert_non_null(strstr(error_text(), config_path)); /* which file */
        assert_null(target.text);
        assert_null(target.other);
        assert_int_equal(ERR_peek_error(), 0); /* no junk for the program to find */
        clear(&target);
    }
}

static void a_failure_frees_the_defaults_too(void **state)
{
    (void)state;
    struct target target = {.other = strdup("default")};
    assert_int_equal(read_text("[main]\ntext = a\nother-text = b\nwindow = c\n", &target), ENVELOPE_E_CONFIG);
    assert_null(target.text);
    assert_null(target.other);
}

static void a_syntax_error_does_not_repeat_the_line(void **state)
{
    (void)state;
    struct target target = {0};
    assert_int_equal(read_text("[main]\ntext = a\nhunter2-pin-value\n", &target), ENVELOPE_E_CONFIG);
    assert_null(strstr(error_text(), "hunter2"));
}

static void what_the_program_had_in_its_error_queue_stays(void **state)
{
    (void)state;
    struct target target = {0};
    ERR_clear_error();
    ERR_raise(ERR_LIB_USER, 42);
    assert_int_equal(read_text("[main\n", &target), ENVELOPE_E_CONFIG);
    assert_int_equal(read_text("[main]\ntext = a\n", &target), ENVELOPE_OK);
    assert_int_equal(ERR_GET_REASON(ERR_get_error()), 42);
    assert_int_equal(ERR_get_error(), 0);
    clear(&target);
}

static void included_files_are_read(void **state)
{
    (void)state;
    char included[160], text[256];
    struct target target = {0};
    snprintf(included, sizeof included, "%s.more", config_path);
    FILE *file = fopen(included, "we");
    assert_non_null(file);
    fputs("other-text = from elsewhere\n", file);
    fclose(file);
    snprintf(text, sizeof text, "[main]\ntext = a\n.include %s\n", included);
    envelope_status status = read_text(text, &target);
    unlink(included);
    assert_int_equal(status, ENVELOPE_OK);
    assert_string_equal(target.other, "from elsewhere");
    clear(&target);
}

static int read_without_permission(void *unused)
{
    (void)unused;
    struct target target = {0};
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
        return 1;
    envelope_status status = config_read(config_path, sections, COUNT(sections), &target);
    return status == ENVELOPE_E_CONFIG && strstr(error_text(), "may not be read by user") ? 0 : 2;
}

static void a_file_that_cannot_be_read_says_why(void **state)
{
    (void)state;
    struct target target = {0};
    unlink(config_path);
    assert_raised(config_read(config_path, sections, COUNT(sections), &target), ENVELOPE_E_CONFIG,
                  "there is no configuration file");
    assert_raised(config_read(scratch, sections, COUNT(sections), &target), ENVELOPE_E_CONFIG, "is a directory");
    write_config("[main]\ntext = a\n");
    assert_int_equal(chmod(config_path, 0), 0);
    assert_child_succeeds(read_without_permission, NULL);
    unlink(config_path);
    static const char binary[] = "[main]\ntext = a\0b\n";
    write_config_bytes(binary, sizeof binary - 1);
    assert_raised(config_read(config_path, sections, COUNT(sections), &target), ENVELOPE_E_CONFIG, "NUL byte");
    /* A file without end is not read to its end. */
    assert_raised(config_read("/dev/zero", sections, COUNT(sections), &target), ENVELOPE_E_CONFIG, "larger than 1 MiB");
}

static void the_nearest_name_is_near(void **state)
{
    (void)state;
    static const char *const names[] = {"store", "default-key", "kek", "pin-file", "pin-env", "ttl"};
    static const struct {
        const char *word;
        const char *expected;
    } rows[] = {
        {"stroe", "store"},
        {"Store", "store"},
        {"default_key", "default-key"},
        {"defaultkey", "default-key"},
        {"pinfile", "pin-file"},
        {"pin-evn", "pin-env"},
        {"kekk", "kek"},
        {"tll", "ttl"},
        {"xyz", NULL},
        {"", NULL},
        {"banana", NULL},
        {"storage", "store"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *nearest = config_nearest(rows[i].word, names, COUNT(names));
        if ((nearest == NULL) != (rows[i].expected == NULL) || (nearest && strcmp(nearest, rows[i].expected) != 0))
            fail_msg("%s: %s", rows[i].word, nearest ? nearest : "nothing");
    }
    char endless[1000];
    memset(endless, 's', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_null(config_nearest(endless, names, COUNT(names)));
    assert_null(config_nearest("store", NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_read_into_its_member),
        cmocka_unit_test(members_that_are_not_named_keep_their_defaults),
        cmocka_unit_test(booleans_come_in_eight_words),
        cmocka_unit_test(variables_are_filled_in),
        cmocka_unit_test(sections_with_a_name_have_a_target_each),
        cmocka_unit_test(each_mistake_is_named_with_its_place),
        cmocka_unit_test(a_failure_frees_the_defaults_too),
        cmocka_unit_test(a_syntax_error_does_not_repeat_the_line),
        cmocka_unit_test(what_the_program_had_in_its_error_queue_stays),
        cmocka_unit_test(included_files_are_read),
        cmocka_unit_test(a_file_that_cannot_be_read_says_why),
        cmocka_unit_test(the_nearest_name_is_near),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
