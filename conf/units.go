package conf

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Unlimited is the value of a Bytes, Rate or Duration that was written as "unlimited". Kafka uses -1 for it as well.
const Unlimited = -1

// Bytes is a size, written with a unit: 512MiB (1024-based) or 500MB (1000-based). Never negative, except Unlimited.
type Bytes int64

// Rate is bytes per second, written 20MiB/s. Never negative, except Unlimited.
type Rate int64

// Duration is a time span, written 500ms, 10s, 1h30m, 7d. Never negative, except Unlimited.
type Duration time.Duration

// Percent is a share between 0 and 1, written 85%.
type Percent float64

var byteUnits = []struct {
	name string
	size int64
}{
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// The number is bounded so that a hostile exponent or a megabyte of digits never reaches big.Rat.
var quantity = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)$`)

// ParseBytes reads a size. Fractions of a byte are cut off.
func ParseBytes(s string) (Bytes, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	n, err := parseSize(s)
	return Bytes(n), err
}

// ParseRate reads a rate.
func ParseRate(s string) (Rate, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	size, found := strings.CutSuffix(s, "/s")
	if !found {
		return 0, fmt.Errorf("%s is not a rate: write it per second, as in \"20MiB/s\"", clip(s))
	}
	n, err := parseSize(strings.TrimSuffix(size, " "))
	if err != nil {
		return 0, fmt.Errorf("%s is not a rate: %w", clip(s), err)
	}
	return Rate(n), nil
}

func parseSize(s string) (int64, error) {
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("%s is negative", clip(s))
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit: write \"%sB\", or use KiB, MiB, GiB (1024) or KB, MB, GB (1000)", clip(s), s)
	}
	m := quantity.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%s is not a size: write a number and a unit, as in \"64MiB\"", clip(s))
	}
	for _, u := range byteUnits {
		if u.name == m[2] {
			return scale(s, m[1], u.size)
		}
	}
	return 0, fmt.Errorf("%s has an unknown unit %q: %s", clip(s), m[2], unitHint(m[1], m[2]))
}

// unitHint guesses what a wrong unit was meant to be; both readings are offered, because 1024 and 1000 differ.
func unitHint(number, unit string) string {
	first := strings.ToUpper(unit[:1])
	if strings.Contains("KMGTP", first) && len(unit) <= 5 {
		return fmt.Sprintf("write \"%s%siB\" (1024) or \"%s%sB\" (1000)", number, first, number, first)
	}
	return "use B, KiB, MiB, GiB, TiB (1024) or KB, MB, GB, TB (1000)"
}

func scale(s, number string, unit int64) (int64, error) {
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%s is not a number", clip(s))
	}
	r.Mul(r, new(big.Rat).SetInt64(unit))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() {
		return 0, fmt.Errorf("%s is too large", clip(s))
	}
	return n.Int64(), nil
}

var durationUnits = []struct {
	name string
	size time.Duration
}{
	{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond},
}

var durationPart = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?)(ms|[a-zµ]+)`)

// ParseDuration reads a time span: one or more number-unit pairs, largest unit first. Fractions of a millisecond are cut off.
func ParseDuration(s string) (Duration, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("%s is negative", clip(s))
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit: write \"%sms\", \"%ss\", \"%sm\", \"%sh\" or \"%sd\"", clip(s), s, s, s, s, s)
	}
	bad := fmt.Errorf("%s is not a time: write a number and ms, s, m, h or d, as in \"10s\" or \"1h30m\"", clip(s))
	rest, last, total := s, -1, int64(0)
	for rest != "" {
		m := durationPart.FindStringSubmatch(rest)
		if m == nil {
			return 0, bad
		}
		unit := -1
		for i, u := range durationUnits {
			if u.name == m[2] {
				unit = i
			}
		}
		if unit <= last {
			return 0, bad // unknown unit, or not largest first
		}
		n, err := scale(s, m[1], int64(durationUnits[unit].size))
		if err != nil {
			return 0, err
		}
		if total > math.MaxInt64-n {
			return 0, fmt.Errorf("%s is too large", clip(s))
		}
		total, last, rest = total+n, unit, rest[len(m[0]):]
	}
	if s == "" {
		return 0, bad
	}
	return Duration(time.Duration(total).Truncate(time.Millisecond)), nil
}

var percent = regexp.MustCompile(`^([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%$`)

// ParsePercent reads a share between 0% and 100%.
func ParsePercent(s string) (Percent, error) {
	m := percent.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%s is not a share: write \"85%%\"", clip(s))
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || f > 100 {
		return 0, fmt.Errorf("%s is more than 100%%", clip(s))
	}
	return Percent(f / 100), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(t []byte) (err error) { *b, err = ParseBytes(string(t)); return err }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(t []byte) (err error) { *r, err = ParseRate(string(t)); return err }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(t []byte) (err error) {
	*d, err = ParseDuration(string(t))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Percent) UnmarshalText(t []byte) (err error) { *p, err = ParsePercent(string(t)); return err }

// String writes the size so that ParseBytes reads the same value: the largest unit that divides it.
func (b Bytes) String() string {
	if b == Unlimited {
		return "unlimited"
	}
	if b == 0 {
		return "0B"
	}
	for _, u := range byteUnits {
		if n := int64(b) / u.size; int64(b)%u.size == 0 {
			return strconv.FormatInt(n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// String writes the rate so that ParseRate reads the same value.
func (r Rate) String() string {
	if r == Unlimited {
		return "unlimited"
	}
	return Bytes(r).String() + "/s"
}

// String writes the span so that ParseDuration reads the same value, down to milliseconds.
func (d Duration) String() string {
	if d == Unlimited {
		return "unlimited"
	}
	rest := time.Duration(d)
	var out strings.Builder
	for _, u := range durationUnits {
		if n := rest / u.size; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u.name)
			rest -= n * u.size
		}
	}
	if out.Len() == 0 {
		return "0s"
	}
	return out.String()
}

// String writes the share so that ParsePercent reads the same value.
func (p Percent) String() string {
	return strconv.FormatFloat(math.Round(float64(p)*1e5)/1e3, 'f', -1, 64) + "%"
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText implements encoding.TextMarshaler.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Std is the span as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Ms is the span in milliseconds, -1 when unlimited, as Kafka's *.ms keys have it.
func (d Duration) Ms() int64 {
	if d == Unlimited {
		return Unlimited
	}
	return time.Duration(d).Milliseconds()
}

// clip quotes a value for a message and bounds its length.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
