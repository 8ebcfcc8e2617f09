package metadata

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// rule is what a value must obey beyond its type. The zero rule allows everything.
type rule struct {
	min, max float64  // bounds of numbers when bounded
	bounded  bool     // min and max count
	orZero   bool     // 0 is allowed below min: not set
	orNone   bool     // -1 is allowed below min: the library chooses
	words    []string // allowed texts, or list elements
	list     func(element string) error
}

func atLeast(n float64) rule { return rule{bounded: true, min: n, max: math.Inf(1)} }
func zeroOrAtLeast(n float64) rule {
	return rule{bounded: true, orZero: true, min: n, max: math.Inf(1)}
}
func between(low, high float64) rule { return rule{bounded: true, min: low, max: high} }
func oneOf(words ...string) rule     { return rule{words: words} }
func noneOrBetween(low, high float64) rule {
	return rule{bounded: true, orNone: true, min: low, max: high}
}

func (k *ConfigKey) checkType(value string) error {
	switch k.Type {
	case TypeBoolean:
		if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
			return errors.New("Expected value to be either true or false")
		}
	case TypeInt:
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return errors.New("Not a number of type INT")
		}
		return k.rule.number(float64(n))
	case TypeLong:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return errors.New("Not a number of type LONG")
		}
		return k.rule.number(float64(n))
	case TypeDouble:
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return errors.New("Not a number of type DOUBLE")
		}
		return k.rule.number(n)
	case TypeList:
		return k.rule.elements(splitList(value))
	default:
		return k.rule.word(value)
	}
	return nil
}

func (r rule) number(n float64) error {
	switch {
	case r.orZero && n == 0, r.orNone && n == -1:
	case r.orNone && (n < r.min || n > r.max):
		return fmt.Errorf("Value must be between %s and %s or equal to -1", strconv.FormatFloat(r.min, 'f', -1, 64), strconv.FormatFloat(r.max, 'f', -1, 64))
	case r.orZero && n < r.min:
		return fmt.Errorf("Value must be 0 or at least %s", strconv.FormatFloat(r.min, 'f', -1, 64))
	case r.bounded && n < r.min:
		return fmt.Errorf("Value must be at least %s", strconv.FormatFloat(r.min, 'f', -1, 64))
	case r.bounded && n > r.max:
		return fmt.Errorf("Value must be no more than %s", strconv.FormatFloat(r.max, 'f', -1, 64))
	}
	return nil
}

func (r rule) word(value string) error {
	if r.words != nil && !slices.Contains(r.words, value) {
		return fmt.Errorf("String must be one of: %s", strings.Join(r.words, ", "))
	}
	return nil
}

func (r rule) elements(list []string) error {
	for i, e := range list {
		if e == "" {
			return errors.New("a list element is empty")
		}
		if slices.Contains(list[:i], e) {
			return fmt.Errorf("%s is in the list twice", e)
		}
		if err := r.word(e); err != nil {
			return err
		}
		if r.list != nil {
			if err := r.list(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitList reads a list as Kafka does: commas, spaces around them do not count, no text is no element.
func splitList(value string) []string {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	list := strings.Split(value, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// throttledReplica is an element of Kafka's replication throttles: partition:broker, or * for all.
func throttledReplica(element string) error {
	if element == "*" {
		return nil
	}
	p, b, ok := strings.Cut(element, ":")
	_, perr := strconv.ParseUint(p, 10, 31)
	_, berr := strconv.ParseUint(b, 10, 31)
	if !ok || perr != nil || berr != nil {
		return errors.New("want * or a list of partition:broker")
	}
	return nil
}
