package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
)

// overlay lays what the control centre says over the file.
func (src *Sources) overlay(dst any) error {
	if len(src.Overlay) == 0 {
		return nil
	}
	name := src.OverlayName
	tree, err := yaml.Parser().Unmarshal(src.Overlay)
	if err != nil {
		return fmt.Errorf("%s is not YAML: %s", name, firstLine(err))
	}
	for _, key := range src.OverlayFixed {
		if reaches(tree, strings.Split(key, ".")) {
			return fmt.Errorf("%s: %s is of this process alone: it cannot come from the control centre", name, key)
		}
	}
	return Parse(src.Overlay, dst, name)
}

// reaches tells whether a tree of mappings says anything at a path.
func reaches(tree map[string]any, path []string) bool {
	at, ok := tree[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	below, ok := at.(map[string]any)
	return ok && reaches(below, path[1:])
}

// Changed lists the leaf keys in which two configurations of one type differ, sorted.
func Changed(a, b any) []string {
	other := map[string]any{}
	walk(reflect.Indirect(reflect.ValueOf(b)), "", func(key string, v reflect.Value, _ reflect.StructField) {
		other[key] = v.Interface()
	})
	var keys []string
	walk(reflect.Indirect(reflect.ValueOf(a)), "", func(key string, v reflect.Value, _ reflect.StructField) {
		if !reflect.DeepEqual(v.Interface(), other[key]) {
			keys = append(keys, key)
		}
	})
	slices.Sort(keys)
	return keys
}

// LiveKeys lists the leaf keys that may change while a process runs, sorted: their fields
// are tagged live:"true".
func LiveKeys(cfg any) []string {
	var keys []string
	walk(reflect.Indirect(reflect.ValueOf(cfg)), "", func(key string, _ reflect.Value, f reflect.StructField) {
		if f.Tag.Get("live") == "true" {
			keys = append(keys, key)
		}
	})
	slices.Sort(keys)
	return keys
}

// Adopt gives dst the values that src has for some leaf keys. Both point to one type.
func Adopt(dst, src any, keys []string) {
	from := map[string]reflect.Value{}
	walk(reflect.Indirect(reflect.ValueOf(src)), "", func(key string, v reflect.Value, _ reflect.StructField) { from[key] = v })
	walk(reflect.Indirect(reflect.ValueOf(dst)), "", func(key string, v reflect.Value, _ reflect.StructField) {
		if slices.Contains(keys, key) {
			v.Set(from[key])
		}
	})
}
