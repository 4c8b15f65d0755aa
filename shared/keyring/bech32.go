package keyring

import (
	"errors"
	"strings"
)

// Bech32 (BIP 173) as age writes its keys: a checksum finds what was mistyped from paper. Without the limit of 90
// characters, and here for 32-byte secrets only.

const bech32Charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

var errBech32 = errors.New("mistyped: the checksum does not match")

func bech32Polymod(values []byte) uint32 {
	sum := uint32(1)
	for _, v := range values {
		top := sum >> 25
		sum = (sum&0x1ffffff)<<5 ^ uint32(v)
		for i, g := range [...]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	return sum
}

// bech32Expand begins the input of the checksum with the lower-case prefix.
func bech32Expand(prefix string) []byte {
	var v []byte
	for _, c := range []byte(prefix) {
		v = append(v, c>>5)
	}
	v = append(v, 0)
	for _, c := range []byte(prefix) {
		v = append(v, c&31)
	}
	return v
}

// regroup turns groups of from bits into groups of to bits. When it pads, the last group is filled up with zeros;
// otherwise what is left over must be less than a group and zero.
func regroup(data []byte, from, to uint, pad bool) ([]byte, bool) {
	var out []byte
	acc, n := uint32(0), uint(0)
	for _, b := range data {
		acc = acc<<from | uint32(b)
		for n += from; n >= to; {
			n -= to
			out = append(out, byte(acc>>n)&(1<<to-1))
		}
	}
	rest := byte(acc<<(to-n)) & (1<<to - 1)
	if pad && n > 0 {
		out = append(out, rest)
	}
	return out, pad || n < from && rest == 0
}

// bech32Encode writes data in upper case behind the upper-case prefix and "1".
func bech32Encode(prefix string, data []byte) string {
	values, _ := regroup(data, 8, 5, true)
	input := append(bech32Expand(strings.ToLower(prefix)), values...)
	sum := bech32Polymod(append(input, 0, 0, 0, 0, 0, 0)) ^ 1
	for i := range 6 {
		values = append(values, byte(sum>>(5*(5-i)))&31)
	}
	var text strings.Builder
	for _, v := range values {
		text.WriteByte(bech32Charset[v])
	}
	return prefix + "1" + strings.ToUpper(text.String())
}

// bech32Decode is the reverse of bech32Encode.
func bech32Decode(prefix, s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, prefix+"1")
	if !ok || len(text) < 6 || text != strings.ToUpper(text) {
		return nil, errBech32
	}
	values := make([]byte, 0, len(text))
	for _, c := range []byte(strings.ToLower(text)) {
		v := strings.IndexByte(bech32Charset, c)
		if v < 0 {
			return nil, errBech32
		}
		values = append(values, byte(v))
	}
	if bech32Polymod(append(bech32Expand(strings.ToLower(prefix)), values...)) != 1 {
		return nil, errBech32
	}
	data, ok := regroup(values[:len(values)-6], 5, 8, false)
	if !ok {
		return nil, errBech32
	}
	return data, nil
}
