package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Equal tells whether two items of the same type say the same, wherever they
// stand in their files.
func Equal[T any](a, b T) bool { return same(reflect.ValueOf(a), reflect.ValueOf(b)) }

// Fixed names the items in which two files differ and that a running node
// cannot change: all but its listeners, its peers, its services, the firewall rules, the log
// level, and TLS items that nothing else uses.
func Fixed(a, b *Config) []string {
	reloadable := []string{
		"File", "LocalOnly", "LogLevel", "Listeners", "Peers", "TLSServers", "TLSClients",
		"Inbound", "Outbound", "FirewallRules", "Warnings",
	}
	var changed []string
	x, y := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range x.NumField() {
		name := x.Type().Field(i).Name
		if !slices.Contains(reloadable, name) && !same(x.Field(i), y.Field(i)) {
			changed = append(changed, itemName(name, x.Field(i), y.Field(i)))
		}
	}
	return changed
}

// itemName is the name of the item that a field of Config holds.
func itemName(field string, values ...reflect.Value) string {
	for _, v := range values {
		if v.Kind() == reflect.Slice && v.Len() > 0 {
			v = v.Index(0)
		}
		if v.Kind() != reflect.Struct {
			continue
		}
		if pos, ok := v.FieldByName("Pos").Interface().(Pos); ok && pos.Item != "" {
			return pos.Item
		}
	}
	return strings.ToLower(field)
}

// same compares without looking at positions.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[Pos]() {
			return true
		}
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Pointer, reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && same(a.Elem(), b.Elem())
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, k := range a.MapKeys() {
			if other := b.MapIndex(k); !other.IsValid() || !same(a.MapIndex(k), other) {
				return false
			}
		}
		return true
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		panic(fmt.Sprintf("a configuration holds a %v", a.Type()))
	}
	return a.Equal(b)
}
