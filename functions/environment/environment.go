// Package environment says which environment variables a function reads: a struct for each function, whose fields carry
// the names. The functions fill it with [Load]; the infrastructure writes the same struct out with [Map], so that the
// two can't disagree. The package imports nothing of ours and no AWS library: infra imports it.
package environment

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Load fills the fields of the struct that v points to from the variables that their tags name:
//
//	Bucket string        `env:"HOLDFAST_BUCKET"`            // must be there
//	Target string        `env:"HOLDFAST_TARGET,optional"`   // may be empty
//	Limit  time.Duration `env:"HOLDFAST_LIMIT,optional"`    // string, int, bool and time.Duration are known
//
// Structs within are filled too. All that is missing or wrong is named in one error. Values are not repeated in it.
func Load(getenv func(string) string, v any) error {
	var missing []string
	var errs []error
	err := each(reflect.ValueOf(v), func(name string, optional bool, f reflect.Value) error {
		text := getenv(name)
		if text == "" {
			if !optional {
				missing = append(missing, name)
			}
			return nil
		}
		if err := set(f, text); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("environment variables that are missing: %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}

// Map returns the variables of the struct (or of that which v points to) with their values. Optional ones without a
// value are left out.
func Map(v any) (map[string]string, error) {
	value := reflect.ValueOf(v)
	if value.Kind() != reflect.Pointer {
		at := reflect.New(value.Type())
		at.Elem().Set(value)
		value = at
	}
	out := map[string]string{}
	err := each(value, func(name string, optional bool, f reflect.Value) error {
		if !optional || !f.IsZero() {
			out[name] = text(f)
		}
		return nil
	})
	return out, err
}

// Names returns the names of the variables in the order of the fields.
func Names(v any) ([]string, error) {
	var names []string
	value := reflect.New(reflect.TypeOf(v))
	if value.Elem().Kind() == reflect.Pointer {
		value = reflect.New(reflect.TypeOf(v).Elem())
	}
	err := each(value, func(name string, _ bool, _ reflect.Value) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

var errStruct = errors.New("environment: want a pointer to a struct")

// each calls fn for the fields with a tag.
func each(v reflect.Value, fn func(name string, optional bool, f reflect.Value) error) error {
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return errStruct
	}
	s := v.Elem()
	for i := range s.NumField() {
		field := s.Type().Field(i)
		tag, tagged := field.Tag.Lookup("env")
		switch {
		case !tagged && field.Type.Kind() == reflect.Struct:
			if err := each(s.Field(i).Addr(), fn); err != nil {
				return err
			}
			continue
		case !tagged:
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		if name == "" || option != "" && option != "optional" || !s.Field(i).CanSet() {
			return fmt.Errorf("environment: field %s of %s: tag %q", field.Name, s.Type(), tag)
		}
		if err := fn(name, option != "", s.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func set(f reflect.Value, text string) error {
	switch f.Interface().(type) {
	case string:
		f.SetString(text)
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("want a whole number")
		}
		f.SetInt(int64(n))
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("want true or false")
		}
		f.SetBool(b)
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("want a duration such as 90s")
		}
		f.SetInt(int64(d))
	default:
		return fmt.Errorf("type %s is not known", f.Type())
	}
	return nil
}

func text(f reflect.Value) string {
	if s, ok := f.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprint(f.Interface())
}
