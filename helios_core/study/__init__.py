"""What measures: pictures and videos read by classical means, no learned judge."""
