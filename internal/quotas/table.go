package quotas

// Table answers which limit holds for a client. It is immutable.
type Table struct {
	limits [Keys]map[Entity]float64
	levels [Keys]uint16 // which of the levels have any limit, as bits
}

// NewTable takes every entity's limits by the names of their keys; names that are not known are passed over.
func NewTable(all map[Entity]map[string]float64) *Table {
	t := &Table{}
	for e, limits := range all {
		e = e.Canonical()
		for name, value := range limits {
			k, ok := ParseKey(name)
			if !ok {
				continue
			}
			if t.limits[k] == nil {
				t.limits[k] = map[Entity]float64{}
			}
			t.limits[k][e] = value
			t.levels[k] |= 1 << e.level()
		}
	}
	return t
}

// Any reports whether anybody has a limit of that kind.
func (t *Table) Any(k Key) bool { return t.levels[k] != 0 }

// level numbers Kafka's levels of precedence from 0; those of addresses are 8 and 9.
func (e Entity) level() int {
	switch {
	case e.IP.Set && e.IP.Default:
		return 9
	case e.IP.Set:
		return 8
	case !e.User.Set && e.ClientID.Default:
		return 7
	case !e.User.Set:
		return 6
	}
	level := 2
	switch {
	case e.ClientID.Default:
		level = 1
	case e.ClientID.Set:
		level = 0
	}
	if e.User.Default {
		level += 3
	}
	return level
}

// Client is who asks.
type Client struct{ User, ClientID string }

// Limit is the limit of a client and who shares it; false where there is none. A client without a client id has that of the default.
func (t *Table) Limit(k Key, c Client) (limit float64, shared Entity, ok bool) {
	limit, shared, _, ok = t.find(k, c)
	return limit, shared, ok
}

// find is Limit with the entity whose limit it is: shared, or one with a default part that stands for it.
func (t *Table) find(k Key, c Client) (limit float64, shared, of Entity, ok bool) {
	if t.levels[k] == 0 {
		return 0, Entity{}, Entity{}, false
	}
	user, client := Named(c.User), Named(c.ClientID)
	for level, e := range [8]struct{ ask, shared Entity }{
		{Entity{User: user, ClientID: client}, Entity{User: user, ClientID: client}},
		{Entity{User: user, ClientID: Default()}, Entity{User: user, ClientID: client}},
		{Entity{User: user}, Entity{User: user}},
		{Entity{User: Default(), ClientID: client}, Entity{User: user, ClientID: client}},
		{Entity{User: Default(), ClientID: Default()}, Entity{User: user, ClientID: client}},
		{Entity{User: Default()}, Entity{User: user}},
		{Entity{ClientID: client}, Entity{ClientID: client}},
		{Entity{ClientID: Default()}, Entity{ClientID: client}},
	} {
		if t.levels[k]&(1<<level) == 0 {
			continue
		}
		if limit, ok := t.limits[k][e.ask]; ok {
			return limit, e.shared, e.ask, true
		}
	}
	return 0, Entity{}, Entity{}, false
}

// AddressLimit is the limit of new connections from an address, in the form of netip.Addr.String; false where there is none.
func (t *Table) AddressLimit(ip string) (perSecond float64, ok bool) {
	perSecond, _, ok = t.findAddress(ip)
	return perSecond, ok
}

func (t *Table) findAddress(ip string) (perSecond float64, of Entity, ok bool) {
	limits := t.limits[ConnectionCreationRate]
	of = Entity{IP: Named(ip)}
	if perSecond, ok = limits[of]; !ok {
		of = Entity{IP: Default()}
		perSecond, ok = limits[of]
	}
	return perSecond, of, ok
}
