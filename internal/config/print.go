package config

import (
	"reflect"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const hidden = "(hidden)"

// YAML renders the effective configuration, nested as in a file. A field tagged
// secret:"true" that is not empty is hidden.
func YAML(cfg any) ([]byte, error) {
	return yaml.Marshal(tree(reflect.Indirect(reflect.ValueOf(cfg))))
}

func tree(v reflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		if tag == "" || tag == "-" || !f.IsExported() {
			continue
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: tag}
		node.Content = append(node.Content, key, leaf(v.Field(i), f))
	}
	return node
}

func leaf(v reflect.Value, f reflect.StructField) *yaml.Node {
	if f.Tag.Get("secret") == "true" && !v.IsZero() {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: hidden}
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: d.String()}
	}
	switch v.Kind() {
	case reflect.Struct:
		return tree(v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			seq := &yaml.Node{Kind: yaml.SequenceNode}
			for i := range v.Len() {
				seq.Content = append(seq.Content, tree(v.Index(i)))
			}
			return seq
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Struct {
			m := &yaml.Node{Kind: yaml.MappingNode}
			for _, k := range sortedKeys(v) {
				m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: k}, tree(v.MapIndex(reflect.ValueOf(k))))
			}
			return m
		}
	}
	node := &yaml.Node{}
	_ = node.Encode(v.Interface()) // plain values always encode
	return node
}

func sortedKeys(v reflect.Value) []string {
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	sort.Strings(keys)
	return keys
}
