package main

import (
	"time"

	"github.com/spf13/pflag"

	"lagoon/conf"
)

// unit is a flag whose value has a unit and is parsed as the configuration is.
type unit[T any] struct {
	kind  string
	get   func() string
	parse func(string) (T, error)
	set   func(T)
}

func (u *unit[T]) String() string { return u.get() }
func (u *unit[T]) Type() string   { return u.kind }
func (u *unit[T]) Set(s string) error {
	v, err := u.parse(s)
	if err == nil {
		u.set(v)
	}
	return err
}

func sizeFlag(f *pflag.FlagSet, p *int64, name string, standard int64, usage string) {
	*p = standard
	f.Var(&unit[conf.Bytes]{"size", func() string { return conf.Bytes(*p).String() }, conf.ParseBytes, func(v conf.Bytes) { *p = int64(v) }}, name, usage)
}

// rateFlag: 0 is allowed, since it means without.
func rateFlag(f *pflag.FlagSet, p *int64, name string, standard int64, usage string) {
	*p = standard
	parse := func(s string) (conf.Rate, error) {
		if s == "0" {
			return 0, nil
		}
		return conf.ParseRate(s)
	}
	f.Var(&unit[conf.Rate]{"rate", func() string { return conf.Rate(*p).String() }, parse, func(v conf.Rate) { *p = int64(v) }}, name, usage)
}

func durationFlag(f *pflag.FlagSet, p *time.Duration, name string, standard time.Duration, usage string) {
	*p = standard
	f.Var(&unit[conf.Duration]{"duration", func() string { return conf.Duration(*p).String() }, conf.ParseDuration, func(v conf.Duration) { *p = v.Std() }}, name, usage)
}
