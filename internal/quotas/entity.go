package quotas

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// ErrInvalid: an entity, key or value that Kafka does not know either. The text names the culprit, in Kafka's words.
var ErrInvalid = errors.New("quotas: invalid")

// Part is what an entity says of one dimension. The zero Part: nothing.
type Part struct {
	Set     bool
	Default bool   // of those without a limit of their own; Name is empty then
	Name    string // as the client gives it
}

// Named is a part that means one user, client id or address.
func Named(name string) Part { return Part{Set: true, Name: name} }

// Default is a part that means everybody who has no limit of his own.
func Default() Part { return Part{Set: true, Default: true} }

func (p Part) text(kind string) string {
	switch {
	case !p.Set:
		return ""
	case p.Default:
		return kind + "=<default>"
	}
	return kind + "=" + p.Name
}

// Entity is whom a limit is for. It is comparable.
type Entity struct{ User, ClientID, IP Part }

// String is for logs: "user=a,client-id=<default>".
func (e Entity) String() string {
	var parts []string
	for _, p := range []string{e.User.text("user"), e.ClientID.text("client-id"), e.IP.text("ip")} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ",")
}

// Canonical has the address in the one form that connections show it in: an address in two spellings is one entity.
func (e Entity) Canonical() Entity {
	if addr, err := netip.ParseAddr(e.IP.Name); err == nil {
		e.IP.Name = addr.Unmap().WithZone("").String()
	}
	return e
}

// Compare orders entities by user, client id and address; what is not set comes first, then the default.
func (e Entity) Compare(o Entity) int {
	for _, p := range [][2]Part{{e.User, o.User}, {e.ClientID, o.ClientID}, {e.IP, o.IP}} {
		if c := p[0].rank() - p[1].rank(); c != 0 {
			return c
		}
		if c := strings.Compare(p[0].Name, p[1].Name); c != 0 {
			return c
		}
	}
	return 0
}

func (p Part) rank() int {
	switch {
	case !p.Set:
		return 0
	case p.Default:
		return 1
	}
	return 2
}

// Check refuses what names nobody. Errors: ErrInvalid.
func (e Entity) Check() error {
	for _, p := range []struct {
		kind string
		part Part
	}{{"user", e.User}, {"client-id", e.ClientID}, {"ip", e.IP}} {
		if p.part.Set && !p.part.Default && p.part.Name == "" {
			return fmt.Errorf("%w: Empty %s not supported", ErrInvalid, p.kind)
		}
		if p.part.Name != "" && (!p.part.Set || p.part.Default) {
			return fmt.Errorf("%w: %s has a name and is not named", ErrInvalid, p.kind)
		}
	}
	switch {
	case e == Entity{}:
		return fmt.Errorf("%w: Invalid empty client quota entity", ErrInvalid)
	case e.IP.Set && (e.User.Set || e.ClientID.Set):
		return fmt.Errorf("%w: Invalid quota entity combination, IP entity should not be combined with User or ClientId", ErrInvalid)
	case e.IP.Set && !e.IP.Default:
		if _, err := netip.ParseAddr(e.IP.Name); err != nil {
			return fmt.Errorf("%w: %.100s is not a valid IP address", ErrInvalid, e.IP.Name)
		}
	}
	return nil
}

// Key is one kind of limit.
type Key uint8

// The kinds of limits. Bytes are per second.
const (
	ProducerByteRate       Key = iota // bytes of Produce requests
	ConsumerByteRate                  // bytes of Fetch responses
	RequestPercentage                 // of one core's time spent on requests
	ControllerMutationRate            // partitions made and deleted per second
	ConnectionCreationRate            // new connections per second, of an address
	ColdFetchByteRate                 // Lagoon's own: bytes read past the page cache, enforced by package admission
	Keys                              // how many there are
)

var keyNames = [Keys]string{"producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate",
	"connection_creation_rate", "cold_fetch_byte_rate"}

// String is the name that tools use.
func (k Key) String() string { return keyNames[k] }

// ParseKey finds a key by its name.
func ParseKey(name string) (Key, bool) {
	for k, n := range keyNames {
		if n == name {
			return Key(k), true
		}
	}
	return 0, false
}

// CheckLimit refuses a limit that the entity cannot have. minCold is the smallest rate of cold reads in bytes per second.
// Errors: ErrInvalid.
func CheckLimit(e Entity, name string, value float64, minCold int64) error {
	k, ok := ParseKey(name)
	switch {
	case !ok || (k == ConnectionCreationRate) != e.IP.Set:
		return fmt.Errorf("%w: Invalid configuration key %.100s", ErrInvalid, name)
	case !(value > 0) || math.IsInf(value, 0):
		return fmt.Errorf("%w: Quota %s must be greater than 0", ErrInvalid, name)
	case k == RequestPercentage || k == ControllerMutationRate:
		return nil
	case k == ConnectionCreationRate && value > math.MaxInt32:
		return fmt.Errorf("%w: Proposed value for %s is too large for an INT.", ErrInvalid, name)
	case value >= math.MaxInt64:
		return fmt.Errorf("%w: Proposed value for %s is too large for a LONG.", ErrInvalid, name)
	case math.Abs(value-math.Round(value)) > 1e-6: // Kafka's tolerance
		return fmt.Errorf("%w: %s cannot be a fractional value.", ErrInvalid, name)
	case k == ColdFetchByteRate && e.User.Set:
		return fmt.Errorf("%w: %s is for client ids; a group has lagoon.catchup.max.bytes.per.second (kafka-configs --entity-type groups)", ErrInvalid, name)
	case k == ColdFetchByteRate && value < float64(minCold):
		return fmt.Errorf("%w: Quota %s must be at least %d", ErrInvalid, name, minCold)
	}
	return nil
}
