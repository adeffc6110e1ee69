-- The changes of one demo run, as cdc_user in the source database. Needs the variable `run`, which
-- makes e-mail addresses new each time. The command tags that psql prints are the count of changes.
\set ON_ERROR_STOP on

\echo > insert three customers
INSERT INTO public.customers (name, email, tier, balance, profile) VALUES
    ('Mary Jackson', 'mary-' || :'run' || '@example.com', 'gold', 120.50, '{"language": "en"}'),
    ('Søren Kierkegaard', 'soren-' || :'run' || '@example.com', 'standard', 0.01, NULL),
    ('王小明', 'wang-' || :'run' || '@example.com', 'standard', 12345.67, '{"visits": 1}');

\echo > insert two orders
INSERT INTO public.orders (customer_id, status, quantity, amount, note)
SELECT id, 'new', 1, balance, 'first order' FROM public.customers
WHERE email IN ('mary-' || :'run' || '@example.com', 'wang-' || :'run' || '@example.com');

\echo > update a customer: newsletter becomes NULL, a column whose default is true
UPDATE public.customers SET newsletter = NULL, balance = balance - 20.25
WHERE email = 'mary-' || :'run' || '@example.com';

\echo > update an order: a whole transaction of two changes
BEGIN;
UPDATE public.orders SET status = 'paid' WHERE customer_id =
    (SELECT id FROM public.customers WHERE email = 'wang-' || :'run' || '@example.com');
UPDATE public.customers SET balance = 0 WHERE email = 'wang-' || :'run' || '@example.com';
COMMIT;

\echo > delete a customer
DELETE FROM public.customers WHERE email = 'soren-' || :'run' || '@example.com';
