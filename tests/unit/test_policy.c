/* Where webhooks may go: src/broadcaster/cidr.h, policy.h; src/net/http_url.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "cidr.h"
#include "conf.h"
#include "http_url.h"
#include "mem.h"
#include "policy.h"
#include "tables.h"

/* ---- ranges ---- */

#define SYNTAX "expected ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8"
#define LONG   "the prefix is longer than the address"
#define BEHIND "bits are set behind the prefix"
#define AS_V4  "these addresses are judged as IPv4; give the IPv4 range"

static const struct cidr_case {
    const char *text, *why; /* NULL: good */
} cidrs[] = {
    { "0.0.0.0/0", NULL },
    { "10.0.0.0/8", NULL },
    { "10.128.0.0/9", NULL },
    { "255.255.255.255/32", NULL },
    { "1.2.3.4/31", NULL },
    { "::/0", NULL },
    { "::/128", NULL },
    { "::1/128", NULL },
    { "fe80::/10", NULL },
    { "FE80::/10", NULL },
    { "2001:db8::8000:0/97", NULL },
    { "::/96", NULL }, /* of it :: and ::1 are judged as IPv6 */
    { "64:ff9b::/95", NULL },
    { "", SYNTAX },
    { "/", SYNTAX },
    { "/8", SYNTAX },
    { "10.0.0.0", SYNTAX },
    { "10.0.0.0/", SYNTAX },
    { "10.0.0.0/8/", SYNTAX },
    { "10.0.0.0/08", SYNTAX },
    { "10.0.0.0/+8", SYNTAX },
    { "10.0.0.0/-1", SYNTAX },
    { "10.0.0.0/8 ", SYNTAX },
    { "10.0.0.0/0x8", SYNTAX },
    { "10.0.0.0/255.0.0.0", SYNTAX },
    { "10.0.0.0/1000", SYNTAX },
    { " 10.0.0.0/8", SYNTAX },
    { "10.0.0/8", SYNTAX },
    { "10/8", SYNTAX },
    { "010.0.0.0/8", SYNTAX },
    { "0xa.0.0.0/8", SYNTAX },
    { "256.0.0.0/8", SYNTAX },
    { "1.2.3.4.5/8", SYNTAX },
    { "localhost/8", SYNTAX },
    { "[::1]/128", SYNTAX },
    { "fe80::%lo/10", SYNTAX },
    { "fe80:::/10", SYNTAX },
    { "1:2:3:4:5:6:7:8:9/128", SYNTAX },
    { "0000:0000:0000:0000:0000:ffff:255.255.255.2551/128", SYNTAX },
    { "10.0.0.0/33", LONG },
    { "::/129", LONG },
    { "10.1.0.0/8", BEHIND },
    { "10.64.0.0/9", BEHIND },
    { "1.2.3.5/31", BEHIND },
    { "0.0.0.1/0", BEHIND },
    { "fe80::1/10", BEHIND },
    { "fec0::/9", BEHIND },
    { "::1/127", BEHIND },
    { "::ffff:0:0/96", AS_V4 },
    { "::ffff:10.0.0.0/104", AS_V4 },
    { "64:ff9b::/96", AS_V4 },
    { "64:ff9b::1.2.3.4/128", AS_V4 },
    { "::1.2.3.4/128", AS_V4 },
};

static void ranges_are_read_strictly(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cidrs); i++) {
        const char *why;
        struct cidr range;
        bool good = cidr_parse(cidrs[i].text, strlen(cidrs[i].text), &range, &why);

        if (cidrs[i].why != NULL && (good || strcmp(why, cidrs[i].why) != 0))
            fail_msg("\"%s\": %s", cidrs[i].text, good ? "taken" : why);
        if (cidrs[i].why == NULL && !good)
            fail_msg("\"%s\": %s", cidrs[i].text, why);
    }
}

static void a_range_ends_where_its_length_says(void **state)
{
    struct guard g = guard_create(64);
    struct lonely_span text = guard_lay(&g, LIT("10.0.0.0/8"));
    struct cidr range;
    const char *why;

    (void)state;
    assert_true(cidr_parse((const char *)text.ptr, text.len, &range, &why));
    assert_false(cidr_parse("10.0.0.0/8", 9, &range, &why));
    guard_destroy(&g);
}

/* ---- addresses ---- */

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage out = { .ss_family = AF_UNSPEC };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(80) };

    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        memcpy(&out, &v4, sizeof v4);
    else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
        memcpy(&out, &v6, sizeof v6);
    else
        table_require(0, text);
    return out;
}

/* With what the configuration says by default, or lists of one's own. */
static struct policy *policy_with(const char *allow, const char *deny)
{
    struct conf_error error;
    struct policy *policy;
    char *text = NULL;
    struct conf c;

    conf_init(&c);
    if (allow != NULL) {
        table_require(asprintf(&text, "webhook.allow=%s", allow) > 0, "asprintf");
        table_require(conf_set(&c, text, &error), text);
        free(text);
    }
    if (deny != NULL) {
        table_require(asprintf(&text, "webhook.deny=%s", deny) > 0, "asprintf");
        table_require(conf_set(&c, text, &error), text);
        free(text);
    }
    policy = policy_create(&c.webhook.allow, &c.webhook.deny);
    conf_fini(&c);
    return policy;
}

static bool allows(const struct policy *p, const char *text)
{
    struct sockaddr_storage address = address_of(text);

    return policy_allows(p, (const struct sockaddr *)&address);
}

static const struct address_case {
    const char *allow, *deny; /* NULL: the default */
    const char *address;
    bool allowed;
} addresses[] = {
    /* Defaults, at the borders of each range. */
    { NULL, NULL, "0.0.0.0", false },
    { NULL, NULL, "0.255.255.255", false },
    { NULL, NULL, "1.0.0.0", true },
    { NULL, NULL, "10.0.0.1", true },
    { NULL, NULL, "127.0.0.1", true },
    { NULL, NULL, "169.253.255.255", true },
    { NULL, NULL, "169.254.0.0", false },
    { NULL, NULL, "169.254.169.254", false },
    { NULL, NULL, "169.254.255.255", false },
    { NULL, NULL, "169.255.0.0", true },
    { NULL, NULL, "223.255.255.255", true },
    { NULL, NULL, "224.0.0.0", false },
    { NULL, NULL, "239.255.255.255", false },
    { NULL, NULL, "240.0.0.0", true },
    { NULL, NULL, "255.255.255.254", true },
    { NULL, NULL, "255.255.255.255", false },
    { NULL, NULL, "::", false },
    { NULL, NULL, "::1", true },
    { NULL, NULL, "2001:db8::1", true },
    { NULL, NULL, "fd00:ec2::254", true },
    { NULL, NULL, "fe7f:ffff::", true },
    { NULL, NULL, "fe80::", false },
    { NULL, NULL, "febf:ffff::1", false },
    { NULL, NULL, "fec0::", true },
    { NULL, NULL, "feff::1", true },
    { NULL, NULL, "ff00::", false },
    { NULL, NULL, "ff02::1", false },
    { NULL, NULL, "ffff::", false },
    /* IPv4 inside IPv6. */
    { NULL, NULL, "::ffff:169.254.169.254", false },
    { NULL, NULL, "::ffff:0.0.0.0", false },
    { NULL, NULL, "::ffff:10.0.0.1", true },
    { NULL, NULL, "64:ff9b::169.254.169.254", false },
    { NULL, NULL, "64:ff9b::8.8.8.8", true },
    { NULL, NULL, "64:ff9b::", false },
    { NULL, NULL, "::169.254.169.254", false },
    { NULL, NULL, "::127.0.0.1", true },
    { NULL, NULL, "::2", false },
    { NULL, NULL, "::fffe:169.254.169.254", true },     /* another prefix */
    { NULL, NULL, "64:ff9b:1::169.254.169.254", true }, /* the same */
    { NULL, "10.0.0.0/8", "::ffff:10.0.0.1", false },
    { NULL, "10.0.0.0/8", "64:ff9b::10.0.0.1", false },
    { "0.0.0.0/0", "::/0", "::ffff:10.0.0.1", true },
    { "::/0", "0.0.0.0/0", "::ffff:10.0.0.1", false },
    { "::/0", "0.0.0.0/0", "::1", true },
    { NULL, "64:ff9b::/64", "64:ff9b::8.8.8.8", true }, /* still IPv4 */
    { NULL, "64:ff9b::/64", "64:ff9b::1:0:0", false },
    /* The longer prefix, deny on a tie, nothing without a range. */
    { "0.0.0.0/0 169.254.10.7/32", NULL, "169.254.10.7", true },
    { "0.0.0.0/0 169.254.10.7/32", NULL, "169.254.10.8", false },
    { "0.0.0.0/0 169.254.0.0/16", NULL, "169.254.10.7", false },
    { "0.0.0.0/0 169.254.0.0/17", NULL, "169.254.10.7", true },
    { "0.0.0.0/0 169.254.0.0/15", NULL, "169.254.10.7", false },
    { "10.0.0.0/8", "10.1.0.0/16 10.1.2.0/24", "10.1.2.3", false },
    { "10.0.0.0/8 10.1.2.3/32", "10.1.0.0/16 10.1.2.0/24", "10.1.2.3", true },
    { "10.0.0.0/8", NULL, "10.255.255.255", true },
    { "10.0.0.0/8", NULL, "11.0.0.0", false },
    { "10.0.0.0/8", NULL, "127.0.0.1", false },
    { "10.0.0.0/8", NULL, "2001:db8::1", false },
    { "2001:db8::/33", NULL, "2001:db8:7fff::1", true },
    { "2001:db8::/33", NULL, "2001:db8:8000::1", false },
    { "::/0", "::1/128", "::1", false },
    { "::/0 fe80::1/128", NULL, "fe80::1", true },
};

static void addresses_are_judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(addresses); i++) {
        struct policy *p = policy_with(addresses[i].allow, addresses[i].deny);

        if (allows(p, addresses[i].address) != addresses[i].allowed)
            fail_msg("row %zu: %s", i, addresses[i].address);
        policy_destroy(p);
    }
}

static void other_families_are_refused(void **state)
{
    struct policy *p = policy_with(NULL, NULL);
    struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "/tmp/x" };

    (void)state;
    assert_false(policy_allows(p, (const struct sockaddr *)&un));
    policy_destroy(p);
}

/* ---- URLs ---- */

#define METADATA "169.254.169.254"

static const struct url_case {
    struct lonely_span url;
    enum policy_verdict verdict; /* by the default rules */
} urls[] = {
    /* Literals that are refused, in every spelling. */
    { LIT_INIT("http://" METADATA "/latest"), POLICY_ADDRESS },
    { LIT_INIT("https://" METADATA), POLICY_ADDRESS },
    { LIT_INIT("HTTP://" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("hTTpS://" METADATA ":8080/"), POLICY_ADDRESS },
    { LIT_INIT("http://" METADATA "?x"), POLICY_ADDRESS },
    { LIT_INIT("http://" METADATA "#x"), POLICY_ADDRESS },
    { LIT_INIT("http://" METADATA "./"), POLICY_ADDRESS },
    { LIT_INIT("http://" METADATA ".:80/"), POLICY_ADDRESS },
    { LIT_INIT("http://2852039166/"), POLICY_ADDRESS },
    { LIT_INIT("http://2852039166./"), POLICY_ADDRESS },
    { LIT_INIT("http://0xa9fea9fe/"), POLICY_ADDRESS },
    { LIT_INIT("http://0XA9FEA9FE/"), POLICY_ADDRESS },
    { LIT_INIT("http://025177524776/"), POLICY_ADDRESS },
    { LIT_INIT("http://0xa9.0xfe.0xa9.0xfe/"), POLICY_ADDRESS },
    { LIT_INIT("http://0251.0376.0251.0376/"), POLICY_ADDRESS },
    { LIT_INIT("http://169.0376.0xa9fe/"), POLICY_ADDRESS },
    { LIT_INIT("http://169.16689662/"), POLICY_ADDRESS },
    { LIT_INIT("http://%31%36%39.254.169.254/"), POLICY_ADDRESS },
    { LIT_INIT("http://169%2e254%2E169.254/"), POLICY_ADDRESS },
    { LIT_INIT("http://0xa9%2efea9fe/"), POLICY_LATER }, /* no number: "fea9fe" */
    { LIT_INIT("http://0xa9%2e0xfea9fe/"), POLICY_ADDRESS },
    { LIT_INIT("http://0%78a9fea9fe/"), POLICY_ADDRESS },
    { LIT_INIT("http://user@" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("http://user:pass%40word@" METADATA ":1/"), POLICY_ADDRESS },
    { LIT_INIT("http://10.0.0.1\\@" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("http://10.0.0.1:80@" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("http:///" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("http:/" METADATA "/"), POLICY_ADDRESS },
    { LIT_INIT("http://" METADATA "/a b/\xc3\xa4"), POLICY_ADDRESS },
    { LIT_INIT("http://0/"), POLICY_ADDRESS },
    { LIT_INIT("http://0.0.0.0/"), POLICY_ADDRESS },
    { LIT_INIT("http://00.0x0.0/"), POLICY_ADDRESS },
    { LIT_INIT("http://224.0.0.1/"), POLICY_ADDRESS },
    { LIT_INIT("http://4294967295/"), POLICY_ADDRESS },
    { LIT_INIT("http://[::]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[0:0:0:0:0:0:0:0]:80/"), POLICY_ADDRESS },
    { LIT_INIT("http://[fe80::1]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[FE80::1%25eth0]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[fe80::1%lo]:99/"), POLICY_ADDRESS },
    { LIT_INIT("http://[ff02::1]/"), POLICY_ADDRESS },
    { LIT_INIT("http://u@[ff02::1]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[::ffff:169.254.169.254]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[::FFFF:a9fe:a9fe]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[64:ff9b::a9fe:a9fe]/"), POLICY_ADDRESS },
    { LIT_INIT("http://[::169.254.169.254]/"), POLICY_ADDRESS },
    /* Literals that may be. */
    { LIT_INIT("http://127.0.0.1:3004/receive"), POLICY_ALLOW },
    { LIT_INIT("http://2130706433/"), POLICY_ALLOW },
    { LIT_INIT("http://127.1/"), POLICY_ALLOW },
    { LIT_INIT("https://[::1]:1/x?y#z"), POLICY_ALLOW },
    { LIT_INIT("http://" METADATA "@10.0.0.1/"), POLICY_ALLOW },
    { LIT_INIT("http://10.0.0.1/?@" METADATA), POLICY_ALLOW },
    { LIT_INIT("http://10.0.0.1#@" METADATA "/"), POLICY_ALLOW },
    { LIT_INIT("http://10.0.0.1/http://" METADATA "/"), POLICY_ALLOW },
    /* Names, among them what looks like a number. */
    { LIT_INIT("http://localhost/"), POLICY_LATER },
    { LIT_INIT("https://name.example:443/x"), POLICY_LATER },
    { LIT_INIT("http://" METADATA ".example/"), POLICY_LATER },
    { LIT_INIT("http://4294967296/"), POLICY_LATER },
    { LIT_INIT("http://1.2.3.4.5/"), POLICY_LATER },
    { LIT_INIT("http://256.256.256.256/"), POLICY_LATER },
    { LIT_INIT("http://08/"), POLICY_LATER },
    { LIT_INIT("http://x\xef\xbc\x91/"), POLICY_LATER },
    /* Other schemes. */
    { LIT_INIT("ftp://name.example/"), POLICY_SCHEME },
    { LIT_INIT("FTP://10.0.0.1/"), POLICY_SCHEME },
    { LIT_INIT("file:///etc/passwd"), POLICY_SCHEME },
    { LIT_INIT("gopher://name.example/_x"), POLICY_SCHEME },
    { LIT_INIT("dict://name.example/"), POLICY_SCHEME },
    { LIT_INIT("httpx://name.example/"), POLICY_SCHEME },
    { LIT_INIT("ws://name.example/"), POLICY_SCHEME },
    /* What does not parse fails when it is delivered to. */
    { LIT_INIT(""), POLICY_LATER },
    { LIT_INIT("x"), POLICY_LATER },
    { LIT_INIT("/path"), POLICY_LATER },
    { LIT_INIT("//" METADATA "/"), POLICY_LATER },
    { LIT_INIT(METADATA), POLICY_LATER },
    { LIT_INIT("http:" METADATA), POLICY_LATER },
    { LIT_INIT("http:////" METADATA), POLICY_LATER },
    { LIT_INIT("http://" METADATA " /"), POLICY_LATER },
    { LIT_INIT("http://" METADATA "\n/"), POLICY_LATER },
    { LIT_INIT("http://" METADATA ":99999/"), POLICY_LATER },
    { LIT_INIT("http://" METADATA "\0/"), POLICY_LATER },
    { LIT_INIT("\0http://" METADATA "/"), POLICY_LATER },
    { LIT_INIT("http://[::1/"), POLICY_LATER },
    { LIT_INIT("http://[fe80::1::]/"), POLICY_LATER },
    { LIT_INIT(" http://" METADATA "/"), POLICY_LATER },
    { LIT_INIT("mailto:x@name.example"), POLICY_LATER },
    { LIT_INIT("\xff\xfe"), POLICY_LATER },
};

static void urls_are_judged(void **state)
{
    struct policy *p = policy_with(NULL, NULL);
    struct guard g = guard_create(4096);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(urls); i++) {
        enum policy_verdict verdict = policy_judge_url(p, guard_lay(&g, urls[i].url));

        if (verdict != urls[i].verdict)
            fail_msg("row %zu: %s: %d", i, (const char *)urls[i].url.ptr, (int)verdict);
    }
    guard_destroy(&g);
    policy_destroy(p);
}

static void every_prefix_of_a_url_has_a_verdict(void **state)
{
    struct policy *p = policy_with("10.0.0.0/8", NULL);
    struct lonely_span url = LIT("http://u:p@[::ffff:10.0.0.1%25lo]:80/x y#z");
    struct guard g = guard_create(256);

    (void)state;
    for (size_t n = 0; n <= url.len; n++) {
        enum policy_verdict verdict =
            policy_judge_url(p, guard_lay(&g, (struct lonely_span){ url.ptr, n }));

        assert_int_equal(verdict, n >= 33 ? POLICY_ALLOW : POLICY_LATER);
    }
    guard_destroy(&g);
    policy_destroy(p);
}

/* 64 KiB, the longest that the protocol has. */
static void a_long_url_is_judged(void **state)
{
    static const char head[] = "http://" METADATA "/";
    struct policy *p = policy_with(NULL, NULL);
    size_t len = 65535;
    char *url = mem_alloc(len);

    (void)state;
    memset(url, ' ', len); /* three bytes each when delivered */
    memcpy(url, head, sizeof head - 1);
    assert_int_equal(policy_judge_url(p, (struct lonely_span){ (uint8_t *)url, len }),
                     POLICY_ADDRESS);
    mem_free(url);
    policy_destroy(p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_read_strictly),
        cmocka_unit_test(a_range_ends_where_its_length_says),
        cmocka_unit_test(addresses_are_judged),
        cmocka_unit_test(other_families_are_refused),
        cmocka_unit_test(urls_are_judged),
        cmocka_unit_test(every_prefix_of_a_url_has_a_verdict),
        cmocka_unit_test(a_long_url_is_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
