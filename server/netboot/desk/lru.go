package desk

import "container/list"

// lru is a map of bounded size: the least recently used entry makes room. MACs
// and addresses come from the network and may be invented by the thousand. Not
// safe for use from several goroutines.
type lru[K comparable, V any] struct {
	max     int
	order   *list.List // of lruEntry[K, V], newest in front
	entries map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key K
	val V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, order: list.New(), entries: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(k K) (V, bool) {
	e, ok := l.entries[k]
	if !ok {
		var zero V
		return zero, false
	}
	return e.Value.(lruEntry[K, V]).val, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e, ok := l.entries[k]; ok {
		e.Value = lruEntry[K, V]{k, v}
		l.order.MoveToFront(e)
		return
	}
	if l.order.Len() >= l.max {
		oldest := l.order.Back()
		delete(l.entries, oldest.Value.(lruEntry[K, V]).key)
		l.order.Remove(oldest)
	}
	l.entries[k] = l.order.PushFront(lruEntry[K, V]{k, v})
}

func (l *lru[K, V]) del(k K) {
	if e, ok := l.entries[k]; ok {
		l.order.Remove(e)
		delete(l.entries, k)
	}
}
