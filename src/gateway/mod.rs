//! DATA PLANE: the Pingora adapter and what it keeps between requests.

pub mod exchange;
