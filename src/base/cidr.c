/*
 * Ranges of addresses (cidr.h). conf_value.c checks what the configuration says with it, policy.c
 * judges by it.
 */
#include "cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* The prefixes of 96 bits whose last 32 are an IPv4 address. */
static const uint8_t carriers[][12] = {
    { [10] = 0xff, [11] = 0xff },
    { [1] = 0x64, [2] = 0xff, [3] = 0x9b },
    { 0 },
};

/* ::/96 holds the unspecified address and loopback, too; they are IPv6. */
static bool is_own_of_v6(const uint8_t bytes[16])
{
    static const uint8_t zeros[15];

    return memcmp(bytes, zeros, sizeof(zeros)) == 0 && bytes[15] <= 1;
}

static struct ip_address ip_v4(const void *bytes)
{
    struct ip_address out = { .v6 = false };

    memcpy(out.bytes, bytes, 4);
    return out;
}

static struct ip_address ip_v6(const void *bytes)
{
    struct ip_address out = { .v6 = true };

    memcpy(out.bytes, bytes, 16);
    return out;
}

/* Replaces an IPv6 address that carries an IPv4 address. */
static bool unwrap(struct ip_address *address)
{
    if (!address->v6 || is_own_of_v6(address->bytes))
        return false;
    for (size_t i = 0; i < sizeof(carriers) / sizeof(carriers[0]); i++) {
        if (memcmp(address->bytes, carriers[i], sizeof(carriers[i])) == 0) {
            *address = ip_v4(address->bytes + 12);
            return true;
        }
    }
    return false;
}

bool ip_address_of(const struct sockaddr *address, struct ip_address *out)
{
    struct sockaddr_in v4; /* copies: the address may lie anywhere */
    struct sockaddr_in6 v6;

    if (address->sa_family == AF_INET) {
        memcpy(&v4, address, sizeof(v4));
        *out = ip_v4(&v4.sin_addr);
        return true;
    }
    if (address->sa_family != AF_INET6)
        return false;
    memcpy(&v6, address, sizeof(v6));
    *out = ip_v6(&v6.sin6_addr);
    unwrap(out);
    return true;
}

/* Do the first `bits` bits agree? */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned rest = bits % 8;

    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return rest == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0;
}

bool cidr_holds(const struct cidr *range, const struct ip_address *address)
{
    return range->network.v6 == address->v6 &&
           same_prefix(range->network.bytes, address->bytes, range->bits);
}

/* Decimal, without sign or leading zeros, at most three digits. */
static bool parse_bits(const char *text, size_t len, unsigned *out)
{
    *out = 0;
    if (len == 0 || len > 3 || (len > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (unsigned)(text[i] - '0');
    }
    return true;
}

static bool parse_address(const char *text, size_t len, struct ip_address *out)
{
    char copy[INET6_ADDRSTRLEN];

    if (len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    *out = (struct ip_address){ .v6 = memchr(copy, ':', len) != NULL };
    return inet_pton(out->v6 ? AF_INET6 : AF_INET, copy, out->bytes) == 1;
}

static bool bits_behind(const struct cidr *range)
{
    struct cidr masked = *range;
    size_t size = range->network.v6 ? 16 : 4, at = range->bits / 8;

    if (at < size)
        masked.network.bytes[at] &= (uint8_t)(0xff00 >> range->bits % 8);
    for (at++; at < size; at++)
        masked.network.bytes[at] = 0;
    return memcmp(masked.network.bytes, range->network.bytes, size) != 0;
}

bool cidr_parse(const char *text, size_t len, struct cidr *out, const char **why)
{
    const char *slash = memchr(text, '/', len);
    struct ip_address carried;
    size_t host;

    *why = "expected ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8";
    if (slash == NULL)
        return false;
    host = (size_t)(slash - text);
    if (!parse_address(text, host, &out->network) ||
        !parse_bits(slash + 1, len - host - 1, &out->bits))
        return false;
    *why = "the prefix is longer than the address";
    if (out->bits > (out->network.v6 ? 128 : 32))
        return false;
    *why = "bits are set behind the prefix";
    if (bits_behind(out))
        return false;
    /* No address would ever be compared with such a range, which is not what its author hopes. */
    *why = "these addresses are judged as IPv4; give the IPv4 range";
    carried = out->network;
    if (out->bits >= 96 && unwrap(&carried))
        return false;
    *why = NULL;
    return true;
}
