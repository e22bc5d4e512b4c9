// Kernels over runs of rows. Three layouts: channels side by side (token-major), entries side by side (channel-major),
// and any other strides, element by element.
#include <kvist/kernels/detail/rows_axpy.ipp>
#include <kvist/kernels/detail/rows_dot.ipp>
#include <kvist/kernels/detail/rows_lengths.ipp>
#include <kvist/kernels/detail/rows_move.ipp>
#include <kvist/kernels/detail/rows_neighbours.ipp>

template <class T>
inline constexpr RowsTable<T> rows_table = {&dot_group<T>,      &axpy_group<T>,  &lengths<T, 2>,
                                            &lengths<T, 1>,     &rows_to_f32<T>, &sum_rows<T>,
                                            &neighbour_dots<T>, &widen<T>,       &narrow<T>};
